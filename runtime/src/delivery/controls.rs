//! What an operator can do with receivers while the server runs: pause and resume them. A pause outlasts a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use super::breaker::Breaker;
use crate::data_dir::{DataDir, DataDirError};

/// Why a receiver could not be paused or resumed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// There is no such receiver.
    #[error("find the receiver {name:?}: the config has {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// It can't be written down, so nothing was changed.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// The receivers of a server, as far as an operator can steer them.
#[derive(Debug)]
pub struct Controls {
    breakers: BTreeMap<String, Arc<Breaker>>,
    data_dir: Arc<DataDir>,
    /// The names that are written down as paused; locked while that changes.
    paused: Mutex<BTreeSet<String>>,
}

impl Controls {
    /// Takes up what the last run left paused. Receivers that are not in the config any more stay in the list: they may
    /// come back.
    pub fn open(data_dir: Arc<DataDir>) -> Result<Controls, DataDirError> {
        let paused = Mutex::new(data_dir.paused_receivers()?.into_iter().collect());
        Ok(Controls { breakers: BTreeMap::new(), data_dir, paused })
    }

    /// Whether a receiver is to start paused.
    pub fn starts_paused(&self, receiver: &str) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).contains(receiver)
    }

    /// Adds a receiver.
    pub fn add(&mut self, receiver: &str, breaker: Arc<Breaker>) {
        self.breakers.insert(receiver.to_owned(), breaker);
    }

    /// Stops calling a receiver, after the call that is running. Blocks on the disk.
    pub fn pause(&self, receiver: &str) -> Result<(), ControlError> {
        let breaker = self.find(receiver)?;
        self.write_down(|paused| paused.insert(receiver.to_owned()), || breaker.pause())?;
        tracing::info!(receiver.name = receiver, "a receiver is paused");
        Ok(())
    }

    /// Calls a receiver again that was paused, or that is quarantined. Blocks on the disk.
    pub fn resume(&self, receiver: &str) -> Result<(), ControlError> {
        let breaker = self.find(receiver)?;
        self.write_down(|paused| paused.remove(receiver), || breaker.resume())?;
        tracing::info!(receiver.name = receiver, "a receiver is resumed");
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&Arc<Breaker>, ControlError> {
        self.breakers.get(name).ok_or_else(|| {
            let known: Vec<_> = self.breakers.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            ControlError::Unknown { name: name.chars().take(64).collect(), known }
        })
    }

    /// Writes a change down, if it is one, and then acts on it: one at a time, so that what is written is what is so.
    fn write_down(
        &self,
        change: impl FnOnce(&mut BTreeSet<String>) -> bool,
        act: impl FnOnce(),
    ) -> Result<(), DataDirError> {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = paused.clone();
        if change(&mut changed) {
            self.data_dir.pause_receivers(changed.iter().map(String::as_str))?;
            *paused = changed;
        }
        act();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn controls(data_dir: &Arc<DataDir>) -> (Controls, Arc<Breaker>) {
        let mut controls = Controls::open(data_dir.clone()).unwrap();
        let settings = config::Receiver::new("journal".to_owned(), "j.wasm".into(), Vec::new());
        let breaker = Arc::new(Breaker::new(&settings, controls.starts_paused("journal")));
        controls.add("journal", breaker.clone());
        (controls, breaker)
    }

    #[test]
    fn a_pause_is_still_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let (first, breaker) = controls(&data_dir);
        first.pause("journal").unwrap();
        first.pause("journal").unwrap();
        assert!(breaker.is_paused());
        let (second, breaker) = controls(&data_dir);
        assert!(breaker.is_paused());
        second.resume("journal").unwrap();
        assert!(!breaker.is_paused());
        assert!(!controls(&data_dir).1.is_paused());
    }

    #[test]
    fn what_is_written_down_is_so_whoever_was_faster() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let (controls, breaker) = controls(&data_dir);
        for _ in 0..20 {
            std::thread::scope(|scope| {
                scope.spawn(|| controls.pause("journal").unwrap());
                scope.spawn(|| controls.resume("journal").unwrap());
            });
            assert_eq!(breaker.is_paused(), !data_dir.paused_receivers().unwrap().is_empty());
        }
    }

    #[test]
    fn a_receiver_that_is_not_there_is_named_with_those_that_are() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
        let (controls, _) = controls(&data_dir);
        let refusal = controls.pause("jurnal").unwrap_err().to_string();
        assert_eq!(refusal, r#"find the receiver "jurnal": the config has journal"#);
        assert!(!controls.starts_paused("jurnal"));
    }
}
