//! Writes down which folders `tests/guests` has, so that `tests/e2e/guests.rs` does not compile without a test of each.

use std::path::Path;
use std::{env, fs};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let guests = Path::new("guests");
    println!("cargo::rerun-if-changed={}", guests.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(guests).context("failed to list tests/guests")? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().into_string().ok().context("the name of a guest is text")?);
        }
    }
    names.sort();
    let mut code = format!("/// The folders of `tests/guests`.\nconst FOLDERS: &[&str] = &{names:?};\n");
    for name in names {
        code += &format!(
            "const _: () = assert!(contains(COVERED, {name:?}), \"tests/guests/{name} has no test: write one that runs it, and \
             name it in tests/tests/e2e/guests.rs\");\n"
        );
    }
    let out = env::var_os("OUT_DIR").context("cargo says where to write")?;
    fs::write(Path::new(&out).join("guests.rs"), code).context("failed to write what was found")
}
