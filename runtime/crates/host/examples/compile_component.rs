//! The compiler process of this crate's own tests. The `wharf` binary has the same as a hidden subcommand.

use std::path::Path;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "the parent reads the error from there")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, flag, memory] = args.as_slice() else {
        eprintln!("usage: compile_component INPUT OUTPUT --memory BYTES");
        return ExitCode::FAILURE;
    };
    let (true, Ok(memory)) = (flag == "--memory", memory.parse()) else {
        eprintln!("--memory must be a number of bytes");
        return ExitCode::FAILURE;
    };
    match wharf_host::compile(Path::new(input), Path::new(output), memory) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
