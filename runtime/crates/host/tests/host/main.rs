//! Runs the fixture guests of `tests/guests` (`make guests` builds them) and components written as text.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in what the tests share")]

mod cache;
mod calls;
mod files;
mod fixtures;
mod handover;
mod inspection;
mod keyvalue;
mod loading;
mod logging;
mod metrics;
mod outgoing;
mod output;
mod pages;
mod settings;
mod versions;
