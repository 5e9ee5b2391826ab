//! Where the programs under test are. Nothing here builds them: `make build guests` does.

use std::path::{Path, PathBuf};

/// The binary of the server, from the same target directory that this test was built into.
pub fn wharf() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // A test lies in `target/debug/deps`.
    let folder = test.parent().and_then(Path::parent).expect("a test lies in a target directory");
    existing(folder.join("wharf"))
}

/// The component of a fixture guest, as in `guest("recorder")`.
pub fn guest(name: &str) -> PathBuf {
    component(&format!("guest_{}", name.replace('-', "_")))
}

/// The component of a receiver that ships with Wharf, as in `component("dashboard")`.
pub fn component(name: &str) -> PathBuf {
    existing(root().join(format!("target/guests/wasm32-wasip2/release/{name}.wasm")))
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.is_file(), "{} is missing: run `make build guests` first", path.display());
    path
}
