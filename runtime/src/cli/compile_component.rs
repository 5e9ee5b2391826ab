//! The hidden subcommand that the server starts to compile a component: Cranelift can't be cancelled or capped inside a
//! process, so it gets one of its own.

use std::path::PathBuf;

/// Compile a component.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The component.
    pub input: PathBuf,
    /// Where the compiled form goes.
    pub output: PathBuf,
    /// The most memory that compiling may take, in bytes.
    #[arg(long, value_name = "BYTES")]
    pub memory: u64,
}

/// Compiles.
pub fn run(args: &Args) -> anyhow::Result<()> {
    wharf_host::compile(&args.input, &args.output, args.memory)?;
    Ok(())
}
