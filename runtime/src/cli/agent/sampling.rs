//! Samples at a steady pace. On a thread of its own, because a file system that hangs must not keep the agent from saying
//! that it is alive.

use std::{
    thread,
    time::{Duration, Instant},
};

use sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;
use tokio::sync::mpsc;

use super::sample::{Sample, Sampler};

/// Starts sampling. It ends when the receiver is dropped, at the next sample.
///
/// # Errors
///
/// When the host tells nothing, or no thread can be started.
pub fn start(interval: Duration) -> anyhow::Result<mpsc::Receiver<Sample>> {
    let mut sampler = Sampler::new()?;
    let (samples, receiver) = mpsc::channel(1);
    thread::Builder::new().name("sampler".to_owned()).spawn(move || {
        // The load is a difference, so the first sample cannot be had at once.
        let mut due = Instant::now() + MINIMUM_CPU_UPDATE_INTERVAL;
        loop {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if samples.blocking_send(sampler.sample()).is_err() {
                return;
            }
            due = next_due(due, interval, Instant::now());
        }
    })?;
    Ok(receiver)
}

/// The moment of the next sample: in step with the one before, or from now on if that has passed. Samples that were missed
/// while the host slept are not made up for, they would all be of the same moment.
fn next_due(due: Instant, interval: Duration, now: Instant) -> Instant {
    let in_step = due + interval;
    if in_step > now { in_step } else { now + interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_keep_in_step_and_are_not_made_up_for() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(next_due(start, second, start + second / 10), start + second);
        assert_eq!(next_due(start, second, start + second), start + second * 2);
        assert_eq!(next_due(start, second, start + second * 100), start + second * 101);
    }
}
