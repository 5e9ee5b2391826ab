//! Wharf: takes in the messages of fleets of agents, keeps them durably, and feeds them to receivers, which are sandboxed
//! WebAssembly components. `ARCHITECTURE.md` has the bird's eye view; this library is everything of the binary but `main`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod backup;
pub mod cli;
pub mod client;
pub mod components;
pub mod config;
pub mod data_dir;
pub mod data_types;
pub mod dedup;
pub mod delivery;
pub mod frontend;
pub mod gate;
mod letter_ids;
pub mod open_files;
pub mod open_log;
pub mod presence;
pub mod reload;
pub mod retention;
pub mod router;
pub mod server;
pub mod swaps;
pub mod telemetry;
mod unix_time;
