//! Keeps a writer from filling the disk: what it may still write, so that a reserve of free space is left for
//! everything else that must go on when the disk is nearly full (cursors, receipts, the operator's tools).

use std::io;
use std::time::{Duration, Instant};

/// The reserve of a log that was told none: two segments of the usual size. Cursors and the like need far
/// less, for as long as it takes someone to make room.
pub(crate) const RESERVE_BYTES: u64 = 128 * 1024 * 1024;

/// How much is written before the file system is asked again: the most that one group of appends usually has,
/// and little enough that topics which write at the same time do not use the reserve up between two looks.
const CHECK_EVERY_BYTES: u64 = 4 * 1024 * 1024;

/// How long an answer of the file system is good for: others write to it as well. It is also how soon room is
/// noticed. Asking takes a few microseconds.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// What is known of the free space of a file system.
#[derive(Debug, Default)]
pub(crate) struct FreeSpace {
    free: u64,
    checked: Option<Instant>,
    /// Since it was checked.
    written: u64,
}

impl FreeSpace {
    /// Takes so many bytes if the reserve stays free then. Otherwise gives how many are free.
    pub(crate) fn take(
        &mut self,
        bytes: u64,
        reserve: u64,
        now: Instant,
        free: impl FnOnce() -> io::Result<u64>,
    ) -> Result<(), u64> {
        let fresh = |checked: Instant| now.saturating_duration_since(checked) < CHECK_EVERY;
        if !self.checked.is_some_and(fresh) || self.written >= CHECK_EVERY_BYTES {
            // Where it can't be told, the write itself tells.
            *self = Self { free: free().unwrap_or(u64::MAX), checked: Some(now), written: 0 };
        }
        let left = self.free.saturating_sub(self.written);
        if reserve > 0 && left.saturating_sub(bytes) < reserve {
            return Err(left);
        }
        self.written = self.written.saturating_add(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: u64 = 1_000;

    #[test]
    fn the_file_system_is_asked_rarely_and_what_was_written_is_counted() {
        let (mut space, start) = (FreeSpace::default(), Instant::now());
        let never = || -> io::Result<u64> { panic!("it was asked") };
        assert_eq!(space.take(LITTLE, 100, start, || Ok(2 * LITTLE + 100)), Ok(()));
        assert_eq!(space.take(LITTLE, 100, start, never), Ok(()));
        assert_eq!(space.take(1, 100, start, never), Err(100));
        assert_eq!(space.take(1, 0, start, never), Ok(()), "without a reserve nothing is refused");

        let later = start + CHECK_EVERY;
        assert_eq!(space.take(1, 100, later, || Ok(100)), Err(100));
        assert_eq!(space.take(1, 100, later, never), Err(100));
        assert_eq!(space.take(1, 100, later + CHECK_EVERY, || Ok(u64::MAX)), Ok(()));
        assert_eq!(space.take(CHECK_EVERY_BYTES, 100, later + CHECK_EVERY, never), Ok(()));
        assert_eq!(space.take(1, 100, later + CHECK_EVERY, || Ok(5)), Err(5), "much was written since");
    }

    #[test]
    fn a_file_system_that_does_not_tell_is_tried() {
        let refused = || Err(io::ErrorKind::Unsupported.into());
        assert_eq!(FreeSpace::default().take(LITTLE, LITTLE, Instant::now(), refused), Ok(()));
    }
}
