//! Kept components that are to run and are not written down as that yet: they must not be removed meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A kept component that is to run, and is not removed as long as this is there.
pub struct Coming {
    /// Its digest.
    pub digest: String,
    all: AllComing,
}

/// The digests of those.
pub type AllComing = Arc<Mutex<Vec<String>>>;

impl Coming {
    /// The component of this digest.
    pub fn new(all: &AllComing, digest: String) -> Coming {
        Coming::lock(all).push(digest.clone());
        Coming { digest, all: all.clone() }
    }

    /// While this is there, none begins to come.
    pub fn lock(all: &AllComing) -> MutexGuard<'_, Vec<String>> {
        // Every change is a single step.
        all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut all = Coming::lock(&self.all);
        if let Some(place) = all.iter().position(|digest| *digest == self.digest) {
            all.swap_remove(place);
        }
    }
}
