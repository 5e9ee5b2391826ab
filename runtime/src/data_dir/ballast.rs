//! A file that is there only to be removed when the disk is full.
//!
//! What a full disk stops is just what would make room on it: cursors can't be saved, so that the log must keep what receivers have
//! finished meanwhile; that segments go can't be noted, so that they stay; a receiver can't be resumed, and a server not be
//! started. None of that takes much. Agents' messages do, and the log's own reserve keeps them from taking this.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio_util::sync::CancellationToken;

use super::DataDir;

/// The name of the file.
pub const BALLAST: &str = "BALLAST";
/// What it takes: a minute of cursors under load, with room for what the databases write when they are opened.
const BYTES: u64 = 4 * 1024 * 1024;
/// With less than this the disk is full, for all that the server does beside storing messages.
const FULL_BYTES: u64 = 1024 * 1024;
/// It is only made where a good deal more than itself is free, so that it does not come and go.
const AMPLE_BYTES: u64 = 4 * BYTES;
/// How often it is looked. Looking costs a few microseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks again and again, until `stop`.
pub async fn watch(data_dir: Arc<DataDir>, stop: CancellationToken) {
    while tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_err() {
        let data_dir = data_dir.clone();
        // Who can't be started does not look: the runtime ends.
        let _ = tokio::task::spawn_blocking(move || trim(&data_dir.path)).await;
    }
}

/// Removes the file if the disk that the folder is on is full, and makes it if there is ample room.
pub fn trim(folder: &Path) {
    let free = statvfs(folder).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    let trimmed = free.map_err(io::Error::from).and_then(|free| trim_for(folder, free));
    if let Err(error) = trimmed {
        let error: &dyn std::error::Error = &error;
        // The next look may well fail in the same way.
        tracing::debug!(error, "the ballast on the disk can't be made or removed");
    }
}

fn trim_for(folder: &Path, free: u64) -> io::Result<()> {
    let path = folder.join(BALLAST);
    let is_there = path.try_exists()?;
    if is_there && free < FULL_BYTES {
        fs::remove_file(&path)?;
        tracing::error!(
            path = %path.display(),
            bytes = BYTES,
            "the disk is full: the ballast is removed, so that messages that are finished can be deleted"
        );
    } else if !is_there && free >= AMPLE_BYTES {
        let file = File::create(&path)?;
        if let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            // What takes no room gives none.
            fs::remove_file(&path)?;
            return Err(error.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_takes_room_until_the_disk_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BALLAST);
        let bytes = |free| {
            trim_for(folder.path(), free).unwrap();
            fs::metadata(&path).map_or(0, |found| found.blocks() * 512)
        };
        assert_eq!(bytes(AMPLE_BYTES - 1), 0);
        assert!(bytes(AMPLE_BYTES) >= BYTES);
        assert!(bytes(FULL_BYTES) >= BYTES);
        assert_eq!(bytes(FULL_BYTES - 1), 0);
        assert_eq!(bytes(FULL_BYTES - 1 + BYTES), 0, "what it gave is not taken back at once");
        assert!(bytes(AMPLE_BYTES) >= BYTES);
    }
}
