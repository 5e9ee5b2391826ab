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

#[test]
fn the_page_for_authors_shows_the_tour_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/receivers.md")).unwrap();
    let mut compared = 0;
    for source in fs::read_dir(root.join("guest-receivers/tour/src")).unwrap() {
        let path = source.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        assert!(page.contains(&format!("```rust\n{source}```")), "copy {path:?} into docs/receivers.md");
        compared += 1;
    }
    assert!(compared >= 8, "{compared} files");
}
