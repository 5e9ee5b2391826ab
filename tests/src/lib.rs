//! The harness of the end-to-end tests: starts the real binary with a fresh data directory, speaks to it as its users do, and
//! reads what it says. It knows the protocol only from outside and shares no code with the server, so that a mistake there
//! can't hide behind the same mistake here.

pub mod admin;
pub mod agent;
pub mod calls;
pub mod config;
pub mod disk;
pub mod encoding;
pub mod files;
pub mod log;
pub mod process;
pub mod raw;
pub mod rest;
pub mod seen;
pub mod server;
pub mod site;
pub mod tree;
pub mod wait;

pub use agent::Agent;
pub use config::Config;
pub use disk::SmallDisk;
pub use encoding::Encoding;
pub use log::Log;
pub use process::Process;
pub use raw::Raw;
pub use rest::Rest;
pub use seen::Seen;
pub use server::Server;
pub use site::{Finished, Site};
pub use tree::Tree;
pub use wait::{eventually, within};
