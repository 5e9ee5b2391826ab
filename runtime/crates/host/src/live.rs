//! Live updates: what a receiver publishes goes to whoever listens now, and the last value of each key to whoever comes
//! later. Nobody who listens slowly is waited for. How guests reach it is in `live/link.rs`; browsers are others' work.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

pub(crate) use link::link;

mod link;

/// The longest key in bytes: twice the longest id of an agent and a kind.
const MAX_KEY: usize = 1024;

/// The longest payload in bytes, as large as a message can be by default.
const MAX_PAYLOAD: usize = 256 * 1024;

/// How many payloads a listener may be behind. They are kept once for all listeners of a receiver: a burst of the
/// metrics of a whole fleet fits, and what is kept stays below 64 MiB even if each payload is as large as can be.
const MAX_BEHIND: usize = 256;

/// What the host keeps for listeners that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveOptions {
    /// The most keys.
    pub max_keys: usize,
    /// The most bytes of keys and payloads together.
    pub max_bytes: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        // A fleet of ten thousand agents with a few hundred bytes each.
        Self { max_keys: 10_000, max_bytes: 16 << 20 }
    }
}

/// The live updates of one receiver. Clones are the same.
#[derive(Clone)]
pub struct Live {
    hub: Arc<Mutex<Hub>>,
    options: LiveOptions,
}

struct Hub {
    kept: Kept,
    sender: broadcast::Sender<Arc<str>>,
}

/// The last value of each key, and which was published longest ago.
#[derive(Default)]
struct Kept {
    by_key: HashMap<Arc<str>, (u64, Arc<str>)>,
    by_age: BTreeMap<u64, Arc<str>>,
    bytes: usize,
    next: u64,
}

/// Why a payload was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("publish: the key has {0} bytes, the limit is {MAX_KEY}")]
    Key(usize),
    #[error("publish: the payload has {0} bytes, the limit is {MAX_PAYLOAD}")]
    Payload(usize),
}

/// What one listener gets.
pub struct LiveSubscription {
    kept: VecDeque<Arc<str>>,
    receiver: broadcast::Receiver<Arc<str>>,
}

impl Live {
    pub(crate) fn new(options: LiveOptions) -> Self {
        let (sender, _) = broadcast::channel(MAX_BEHIND);
        Self { hub: Arc::new(Mutex::new(Hub { kept: Kept::default(), sender })), options }
    }

    /// The same listeners and kept values, with other limits for what is published through it.
    pub(crate) fn with_options(&self, options: LiveOptions) -> Self {
        Self { hub: self.hub.clone(), options }
    }

    /// Starts to listen. The kept payloads come first, in the order in which they were published; nothing is missed and
    /// nothing comes twice between them and the new ones.
    pub fn subscribe(&self) -> LiveSubscription {
        let hub = self.hub();
        LiveSubscription { kept: hub.kept.payloads(), receiver: hub.sender.subscribe() }
    }

    pub(crate) fn publish(&self, key: Option<&str>, payload: String) -> Result<(), PublishError> {
        if let Some(key) = key.filter(|key| key.len() > MAX_KEY) {
            return Err(PublishError::Key(key.len()));
        }
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::Payload(payload.len()));
        }
        let mut hub = self.hub();
        if payload.is_empty() {
            if let Some(key) = key {
                hub.kept.forget(key);
            }
            return Ok(());
        }
        let payload: Arc<str> = payload.into();
        if let Some(key) = key {
            hub.kept.keep(key, payload.clone(), self.options);
        }
        // An error means that nobody listens, which is fine.
        let _ = hub.sender.send(payload);
        Ok(())
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        // Only the standard library's collections run under the lock, and they do not panic.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveSubscription {
    /// The next payload. `None` ends it: this listener was too slow, or nothing will be published any more.
    ///
    /// A call that is given up loses nothing.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        match self.kept.pop_front() {
            Some(payload) => Some(payload),
            None => self.receiver.recv().await.ok(),
        }
    }
}

impl Kept {
    fn keep(&mut self, key: &str, payload: Arc<str>, options: LiveOptions) {
        self.forget(key);
        let key: Arc<str> = key.into();
        let age = self.next;
        self.next += 1;
        self.bytes += size(&key, &payload);
        self.by_age.insert(age, key.clone());
        self.by_key.insert(key, (age, payload));
        while self.by_key.len() > options.max_keys || self.bytes > options.max_bytes {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some((age, payload)) = self.by_key.remove(key) {
            self.by_age.remove(&age);
            self.bytes -= size(key, &payload);
        }
    }

    fn payloads(&self) -> VecDeque<Arc<str>> {
        let payload = |key| self.by_key.get(key).map(|(_, payload)| payload.clone());
        self.by_age.values().filter_map(payload).collect()
    }
}

fn size(key: &str, payload: &str) -> usize {
    key.len() + payload.len()
}

#[cfg(test)]
mod tests;
