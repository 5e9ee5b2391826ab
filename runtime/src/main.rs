//! The `wharf` program: parses the command line, runs the command, turns its outcome into an exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use wharf::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
