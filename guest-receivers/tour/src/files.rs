//! Appends to a file in a folder of the server's machine. Needs a grant such as
//! `files = [{ host = "out", guest = "/out", write = true }]`.

use std::fs::OpenOptions;
use std::io::Write;

/// Appends one line to `/out/messages.ndjson`.
pub fn append(line: &str) -> Result<(), String> {
    let failed = |error| format!("failed to append to /out/messages.ndjson: {error}");
    let mut file =
        OpenOptions::new().create(true).append(true).open("/out/messages.ndjson").map_err(failed)?;
    // One call for the whole line, so that no other instance writes within it.
    file.write_all(format!("{line}\n").as_bytes()).map_err(failed)
}
