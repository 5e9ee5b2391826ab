//! Where all receivers are in their data types: what is saved, and from where on topics are needed.

use std::sync::{Arc, PoisonError, RwLock};

use super::Progress;

/// The cursors that there are.
#[derive(Debug)]
pub struct Places {
    lists: RwLock<Lists>,
}

#[derive(Debug)]
struct Lists {
    /// Of receivers that are fed.
    fed: Vec<Arc<Progress>>,
    /// Of those that left in this run, each pair once. They hold nothing back, and are taken up again if they come back: with what
    /// is known of them beside where they are. There are as many as an operator takes out of a config between a start and a stop.
    left: Vec<Arc<Progress>>,
}

impl Places {
    /// Those of receivers that are fed.
    pub fn new(fed: Vec<Arc<Progress>>) -> Places {
        Places { lists: RwLock::new(Lists { fed, left: Vec::new() }) }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Progress>> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        lists.fed.iter().chain(&lists.left).cloned().collect()
    }

    /// From where on some receiver still needs a topic; nothing if none is mapped to it.
    pub fn needed_from(&self, topic: &str) -> Option<u64> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let mapped = lists.fed.iter().filter(|progress| progress.topic() == topic);
        mapped.map(|progress| progress.saved_lowest()).min()
    }

    /// Adds those of receivers that are fed from now on.
    pub fn add(&self, progress: impl IntoIterator<Item = Arc<Progress>>) {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        for progress in progress {
            lists.left.retain(|left| !Arc::ptr_eq(left, &progress));
            lists.fed.push(progress);
        }
    }

    /// Those of a receiver in a topic that it left in this run.
    pub fn left(&self, receiver: &str, topic: &str) -> Option<Arc<Progress>> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let mut left = lists.left.iter();
        left.find(|progress| progress.receiver() == receiver && progress.topic() == topic).cloned()
    }

    /// These are not of receivers that are fed any more.
    pub fn leave(&self, leaving: &[Arc<Progress>]) {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let Lists { fed, left } = &mut *lists;
        fed.retain(|fed| !leaving.iter().any(|leaving| Arc::ptr_eq(leaving, fed)));
        // Those of topics in memory are as volatile as what they point at.
        left.extend(leaving.iter().filter(|progress| !progress.is_volatile()).cloned());
    }

    /// Forgets these: they never came to be fed.
    pub fn forget(&self, taken: &[Arc<Progress>]) {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        lists.fed.retain(|fed| !taken.iter().any(|taken| Arc::ptr_eq(taken, fed)));
    }
}
