//! A disk of a few megabytes that can be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Room for what the oracle's load leaves behind in a minute, and little more.
const BYTES: &str = "size=96m";

/// The disk; it is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    is_small: bool,
}

impl SmallDisk {
    /// Mounts one, or falls back to a folder where that is not allowed, and says so.
    pub fn mount() -> SmallDisk {
        let folder = tempfile::Builder::new().prefix("wharf-disk-").tempdir().expect("a folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", BYTES, "wharf-small-disk"])
            .arg(folder.path())
            .output();
        let is_small = mounted.is_ok_and(|mounted| mounted.status.success());
        if !is_small {
            eprintln!("no tmpfs can be mounted here: the full disk is left out");
        }
        SmallDisk { folder, is_small }
    }

    /// Whether it can be filled.
    pub fn is_small(&self) -> bool {
        self.is_small
    }

    /// A folder on it for the server's data.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Leaves not a byte.
    pub fn fill(&self) {
        assert!(self.is_small, "this would fill the disk of the machine");
        let mut file = File::create(self.filler()).expect("a file can be made");
        let some = vec![1; 64 * 1024];
        while file.write_all(&some).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }

    /// Takes back what [`fill`](Self::fill) wrote.
    pub fn make_room(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        Path::join(self.folder.path(), "filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_small {
            let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}
