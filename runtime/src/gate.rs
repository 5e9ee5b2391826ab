//! Whether a topic takes new messages. Deliveries shut a gate while a receiver that must not lose any has too many before it;
//! the router looks at it and waits. Neither knows the other.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The gate of one topic. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    /// How many hold it shut.
    holds: watch::Sender<usize>,
}

/// Holds a gate shut, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it opens the gate"]
pub struct Hold {
    gate: Gate,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Gate {
        Gate { holds: watch::Sender::new(0) }
    }

    /// Shuts it, whoever else does so too.
    pub fn shut(&self) -> Hold {
        self.holds.send_modify(|holds| *holds = holds.saturating_add(1));
        Hold { gate: self.clone() }
    }

    /// Whether nobody holds it shut.
    pub fn is_open(&self) -> bool {
        *self.holds.borrow() == 0
    }

    /// Waits at most `wait` until nobody holds it shut, and says whether that is so.
    pub async fn opens(&self, wait: Duration) -> bool {
        let mut holds = self.holds.subscribe();
        timeout(wait, holds.wait_for(|holds| *holds == 0)).await.is_ok()
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.holds.send_modify(|holds| *holds = holds.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_gate_opens_when_the_last_hold_is_gone() {
        let gate = Gate::new();
        assert!(gate.is_open() && gate.opens(Duration::ZERO).await);
        let (one, other) = (gate.shut(), gate.clone().shut());
        assert!(!gate.is_open() && !gate.opens(Duration::ZERO).await);
        drop(one);
        assert!(!gate.is_open() && !gate.opens(Duration::ZERO).await);
        // Longer than any test.
        let mut waiting = std::pin::pin!(gate.opens(Duration::from_secs(600)));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(other);
        assert!(waiting.await);
        assert!(gate.is_open());
    }
}
