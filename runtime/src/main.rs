//! The `wharf` program: parses the command line, runs the command, turns its outcome into an exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use wharf::cli::Cli;

// A message is made on one thread, stored by another and handed over on a third, in pieces that each allocates and another
// frees. The system's allocator takes a tenth of the server's time for that, and more for every core.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
