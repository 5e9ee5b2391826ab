//! The data types that there are, as they are now: a reload may bring more.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use wharf_log::Topic;

use super::Feed;

/// All data types, in the order of their names. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    feeds: Arc<RwLock<BTreeMap<String, Feed>>>,
}

impl Feeds {
    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<Feed> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Feed> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Their topics.
    pub fn topics(&self) -> Vec<Topic> {
        self.feeds
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|feed| feed.topic.clone())
            .collect()
    }

    /// Adds one.
    pub fn add(&self, feed: Feed) {
        let name = feed.topic.name().to_owned();
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).insert(name, feed);
    }

    /// Takes one out that nobody uses.
    pub fn remove(&self, name: &str) {
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl FromIterator<Feed> for Feeds {
    fn from_iter<I: IntoIterator<Item = Feed>>(feeds: I) -> Feeds {
        let all = Feeds::default();
        feeds.into_iter().for_each(|feed| all.add(feed));
        all
    }
}
