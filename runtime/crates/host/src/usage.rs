//! What the instances of a receiver use of the machine: time of threads, and memory.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What all instances of a receiver use together, those for its pages included.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Since the receiver was loaded.
    busy_nanoseconds: AtomicU64,
    /// Of the instances that there are.
    memory_bytes: AtomicU64,
}

impl Usage {
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanoseconds.load(Ordering::Relaxed))
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Counts the time that a thread spends in a call, what the host does for it there included, and not the time that the call
    /// waits. The thread's own clock would leave out the time for which the system lets others run, but takes ten times as
    /// long to read: 3 % of a call with 64 messages.
    pub(crate) async fn metered<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        poll_fn(|context| {
            let began = Instant::now();
            let outcome = call.as_mut().poll(context);
            let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.busy_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
            outcome
        })
        .await
    }
}

/// Memory of one instance, counted for as long as the value lives.
#[derive(Debug)]
pub(crate) struct HeldMemory {
    usage: Arc<Usage>,
    bytes: u64,
}

impl HeldMemory {
    pub(crate) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts so many bytes more.
    pub(crate) fn grow(&mut self, by: u64) {
        self.bytes = self.bytes.saturating_add(by);
        self.usage.memory_bytes.fetch_add(by, Ordering::Relaxed);
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.usage.memory_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_while_it_is_held() {
        let usage = Arc::new(Usage::default());
        let mut one = HeldMemory::new(usage.clone());
        let mut other = HeldMemory::new(usage.clone());
        one.grow(100);
        other.grow(10);
        other.grow(1);
        assert_eq!((usage.memory_bytes(), other.bytes()), (111, 11));
        drop(one);
        assert_eq!(usage.memory_bytes(), 11);
        drop(other);
        assert_eq!(usage.memory_bytes(), 0);
    }

    #[tokio::test]
    async fn work_is_counted_and_waiting_is_not() {
        let work = Duration::from_millis(10);
        let spin = || {
            let began = Instant::now();
            while began.elapsed() < work {
                std::hint::black_box(());
            }
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let usage = Usage::default();
        let began = Instant::now();
        let others = async {
            spin();
            sender.send(()).unwrap();
        };
        let call = usage.metered(async {
            receiver.await.unwrap();
            spin();
        });
        tokio::join!(call, others);
        assert!(usage.busy() >= work, "{:?}", usage.busy());
        assert!(usage.busy() + work <= began.elapsed(), "{:?}", usage.busy());
    }
}
