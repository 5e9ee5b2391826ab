//! The ceiling of what a log can do on a disk, for `make bench`: appends groups of bytes to a plain file, and syncs after each.
//! Prints the messages a second. A new file begins where a segment of the log would.
//!
//! Arguments: the folder, the messages in a group, its bytes, the seconds, and `fsync` or `os`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use wharf_log::TopicOptions;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, messages, bytes, seconds, durability] = args.as_slice() else {
        return Err("expected FOLDER MESSAGES BYTES SECONDS fsync|os".into());
    };
    let (messages, bytes): (u64, usize) = (messages.parse()?, bytes.parse()?);
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let sync = durability == "fsync";
    // No two bytes that follow each other are the same, as a disk might notice.
    let group: Vec<u8> = (0..=u8::MAX).cycle().take(bytes).collect();

    fs::create_dir_all(folder)?;
    let path = Path::new(folder).join("plain");
    let mut file = File::create(&path)?;
    let (mut written, mut groups) = (0_u64, 0_u64);
    let started = Instant::now();
    while started.elapsed() < duration {
        if written >= TopicOptions::SEGMENT_BYTES {
            fs::remove_file(&path)?;
            file = File::create(&path)?;
            written = 0;
        }
        file.write_all(&group)?;
        if sync {
            file.sync_data()?;
        }
        written += u64::try_from(group.len())?;
        groups += 1;
    }
    let rate = (groups * messages) as f64 / started.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    writeln!(std::io::stdout(), "{rate:.0}")?;
    Ok(())
}
