//! What the README shows is what there is.

use std::fs;
use std::path::Path;

#[test]
fn the_readme_shows_the_journal_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let source = fs::read_to_string(root.join("guest-receivers/journal/src/lib.rs")).unwrap();
    assert!(readme.contains(source.trim_end()), "copy guest-receivers/journal/src/lib.rs into the README");
}
