//! The two ways of waiting: for one thing that will come, and for a state that can only be asked for. Both are bounded, and
//! both say what they waited for in vain. There is no other sleep in the tests.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take. Far above what it takes, because only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a state is asked for.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for a future.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks again and again until there is an answer.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = within(what, probe()).await {
            return value;
        }
        assert!(Instant::now() < end, "asked for {PATIENCE:?} in vain for {what}");
        sleep(PAUSE).await;
    }
}
