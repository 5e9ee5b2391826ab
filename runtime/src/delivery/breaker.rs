//! One receiver's breaker: whether its component may be called now.
//!
//! A receiver that only fails is *quarantined*: its messages stay in the log, and after a pause one call is let through
//! as a probe. If that goes well everything goes on; if not, the pause doubles. What puts a receiver there:
//!
//! - so many failures in a row, with no call between that went well. A failure is a message that was given up after it had
//!   been found to be the one that can't be handled, however many calls that took; or a start, a tick or a wait for the host
//!   that failed;
//! - so much of the last minute spent in calls that failed, however many went well between.
//!
//! An operator can also *pause* a receiver, which outlasts everything but `resume`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config;

/// The time over which failed calls are added up, in steps.
const WINDOW: Duration = Duration::from_secs(60);
/// One step: when it is a minute ago it is forgotten whole.
const STEP: Duration = Duration::from_secs(5);
/// The steps of the window.
const STEPS: usize = 12;

/// What the breaker of a receiver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls are let through.
    Closed,
    /// Nothing is called until the probe.
    Open {
        /// When a probe is let through.
        until: Instant,
    },
    /// One call is let through and decides.
    Probing,
}

/// The breaker of one receiver, shared by its instances.
#[derive(Debug)]
pub struct Breaker {
    receiver: String,
    switch: Mutex<Switch>,
    /// Changes whenever something may be let through that was not before.
    changed: watch::Sender<()>,
}

impl Breaker {
    /// A closed breaker, paused or not.
    pub fn new(settings: &config::Receiver, paused: bool) -> Breaker {
        let switch = Switch::new(settings, paused, Instant::now());
        Breaker {
            receiver: settings.name.clone(),
            switch: Mutex::new(switch),
            changed: watch::Sender::new(()),
        }
    }

    /// Waits until a call may be made. Whoever is let through says how it went, with [`succeeded`](Self::succeeded),
    /// [`failed`](Self::failed) or [`not_made`](Self::not_made), and gives the pass to it.
    pub async fn enter(&self) -> Pass {
        let mut changed = self.changed.subscribe();
        loop {
            let until = match self.lock().enter(Instant::now()) {
                Entry::Now(pass) => return pass,
                Entry::Not(until) => until,
            };
            let probe = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = probe => {}
                // The sender lives as long as this breaker.
                _ = changed.changed() => {}
            }
        }
    }

    /// A call went well.
    pub fn succeeded(&self, pass: Pass) {
        if self.lock().succeeded(pass, Instant::now()) {
            tracing::info!(receiver.name = self.receiver, "a quarantined receiver works again");
            self.changed.send_replace(());
        }
    }

    /// A call failed after `spent`. As a probe it decides; otherwise its time counts.
    pub fn failed(&self, pass: Pass, spent: Duration) {
        let opened = self.lock().failed(pass, spent, Instant::now());
        self.tell(opened);
    }

    /// The call was not made after all. If it was to be the probe, somebody else is let through as that.
    pub fn not_made(&self, pass: Pass) {
        if self.lock().not_made(pass, Instant::now()) {
            self.changed.send_replace(());
        }
    }

    /// A failure that counts, see the top of this file. Its calls were counted before.
    pub fn failure(&self) {
        let opened = self.lock().failure(Instant::now());
        self.tell(opened);
    }

    /// Lets nothing through until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.lock().paused = true;
    }

    /// Ends a pause, and lets a probe through at once if the receiver is quarantined.
    pub fn resume(&self) {
        self.lock().resume(Instant::now());
        self.changed.send_replace(());
    }

    /// Whether an operator paused the receiver.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// Whether anything may be called that need not be: neither paused nor quarantined.
    pub fn is_closed(&self) -> bool {
        let switch = self.lock();
        !switch.paused && switch.state == BreakerState::Closed
    }

    /// What it is doing, pauses aside.
    pub fn state(&self) -> BreakerState {
        self.lock().state
    }

    fn tell(&self, opened: Option<Opened>) {
        let Some(Opened { why, pause }) = opened else { return };
        // Whoever waits for the probe's outcome waits for the next probe now.
        self.changed.send_replace(());
        tracing::error!(
            receiver.name = self.receiver,
            why,
            pause = %humantime::format_duration(pause),
            "a receiver is quarantined: its messages wait in the log, and it is tried again after the pause"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Switch> {
        // Every change is whole before anything that could panic.
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The breaker without those who wait at it: what it does at which moment.
#[derive(Debug)]
struct Switch {
    max_failures: u32,
    max_failed_time: Duration,
    first_pause: Duration,
    longest_pause: Duration,
    state: BreakerState,
    paused: bool,
    failures_in_a_row: u32,
    failed_time: FailedTime,
    /// The pause of the next quarantine.
    pause: Duration,
}

/// What a call was let through as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// One of many.
    Ordinary,
    /// The one that decides whether a quarantine ends.
    Probe,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Now(Pass),
    /// Not before then, or not before something changes.
    Not(Option<Instant>),
}

/// It opened.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    why: &'static str,
    pause: Duration,
}

impl Switch {
    fn new(settings: &config::Receiver, paused: bool, now: Instant) -> Switch {
        let instances = u32::try_from(settings.instances).unwrap_or(u32::MAX);
        let share = (WINDOW / 100).saturating_mul(settings.quarantine_percent);
        Switch {
            max_failures: settings.quarantine_failures,
            max_failed_time: share.saturating_mul(instances),
            first_pause: settings.quarantine_pause,
            longest_pause: settings.quarantine_longest,
            state: BreakerState::Closed,
            paused,
            failures_in_a_row: 0,
            failed_time: FailedTime::new(now),
            pause: settings.quarantine_pause,
        }
    }

    fn enter(&mut self, now: Instant) -> Entry {
        match self.state {
            _ if self.paused => Entry::Not(None),
            BreakerState::Closed => Entry::Now(Pass::Ordinary),
            BreakerState::Probing => Entry::Not(None),
            BreakerState::Open { until } if until <= now => {
                self.state = BreakerState::Probing;
                Entry::Now(Pass::Probe)
            }
            BreakerState::Open { until } => Entry::Not(Some(until)),
        }
    }

    /// Whether that closed it.
    fn succeeded(&mut self, pass: Pass, now: Instant) -> bool {
        self.failures_in_a_row = 0;
        if pass != Pass::Probe || self.state != BreakerState::Probing {
            return false;
        }
        self.state = BreakerState::Closed;
        self.pause = self.first_pause;
        self.failed_time = FailedTime::new(now);
        true
    }

    fn failed(&mut self, pass: Pass, spent: Duration, now: Instant) -> Option<Opened> {
        match self.state {
            // Another instance may still have been in a call when the quarantine began: that says nothing of now.
            BreakerState::Probing if pass == Pass::Ordinary => None,
            BreakerState::Probing => Some(self.open("the call that was let through failed", now)),
            BreakerState::Closed => {
                self.failed_time.add(now, spent);
                let too_much = self.failed_time.total(now) >= self.max_failed_time;
                too_much.then(|| self.open("too much of the last minute was spent in calls that failed", now))
            }
            BreakerState::Open { .. } => None,
        }
    }

    /// Whether a probe is to be made by somebody else.
    fn not_made(&mut self, pass: Pass, now: Instant) -> bool {
        let is_probe = pass == Pass::Probe && self.state == BreakerState::Probing;
        if is_probe {
            self.state = BreakerState::Open { until: now };
        }
        is_probe
    }

    fn failure(&mut self, now: Instant) -> Option<Opened> {
        if self.state != BreakerState::Closed {
            return None;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let too_many = self.failures_in_a_row >= self.max_failures;
        too_many.then(|| self.open("it failed as often in a row as it may", now))
    }

    fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.pause = self.first_pause;
        if let BreakerState::Open { until } = &mut self.state {
            *until = now;
        }
    }

    fn open(&mut self, why: &'static str, now: Instant) -> Opened {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(self.longest_pause);
        self.failures_in_a_row = 0;
        self.failed_time = FailedTime::new(now);
        self.state = BreakerState::Open { until: now + pause };
        Opened { why, pause }
    }
}

/// Time spent in failed calls within the last minute, to the precision of a step.
#[derive(Debug)]
struct FailedTime {
    /// When the current step began, and the time of each, the current one last.
    began: Instant,
    steps: [Duration; STEPS],
}

impl FailedTime {
    fn new(now: Instant) -> FailedTime {
        FailedTime { began: now, steps: [Duration::ZERO; STEPS] }
    }

    fn add(&mut self, now: Instant, spent: Duration) {
        self.roll(now);
        if let Some(step) = self.steps.last_mut() {
            *step = step.saturating_add(spent);
        }
    }

    fn total(&mut self, now: Instant) -> Duration {
        self.roll(now);
        self.steps.iter().sum()
    }

    fn roll(&mut self, now: Instant) {
        let mut passed = 0;
        while now.duration_since(self.began) >= STEP && passed < STEPS {
            self.began += STEP;
            self.steps.rotate_left(1);
            if let Some(step) = self.steps.last_mut() {
                *step = Duration::ZERO;
            }
            passed += 1;
        }
        if passed == STEPS {
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn settings(instances: usize) -> config::Receiver {
        let mut settings = config::Receiver::new("r".to_owned(), "r.wasm".into(), vec!["t".to_owned()]);
        settings.instances = instances;
        settings.quarantine_failures = 3;
        settings.quarantine_percent = 50;
        settings.quarantine_pause = seconds(10);
        settings.quarantine_longest = seconds(35);
        settings
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn switch(instances: usize) -> (Switch, Instant) {
        let now = Instant::now();
        (Switch::new(&settings(instances), false, now), now)
    }

    fn open(switch: &mut Switch, now: Instant) {
        assert_eq!((switch.failure(now), switch.failure(now)), (None, None));
        assert!(switch.failure(now).is_some());
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let (mut switch, now) = switch(1);
        for _ in 0..10 {
            assert_eq!((switch.failure(now), switch.failure(now)), (None, None));
            assert!(!switch.succeeded(Pass::Ordinary, now));
        }
        assert_eq!(switch.enter(now), Entry::Now(Pass::Ordinary));
        open(&mut switch, now);
        assert_eq!(switch.enter(now), Entry::Not(Some(now + seconds(10))));
    }

    #[test]
    fn one_probe_is_let_through_after_a_pause_that_grows() {
        let (mut switch, mut now) = switch(1);
        open(&mut switch, now);
        for pause in [10, 20, 35, 35] {
            assert_eq!(switch.enter(now), Entry::Not(Some(now + seconds(pause))));
            now += seconds(pause);
            assert_eq!(switch.enter(now), Entry::Now(Pass::Probe));
            assert_eq!(switch.enter(now), Entry::Not(None), "a second call while the first decides");
            assert_eq!(switch.failed(Pass::Ordinary, seconds(0), now), None, "a call that began before");
            assert!(!switch.succeeded(Pass::Ordinary, now), "a call that began before");
            assert!(switch.failed(Pass::Probe, seconds(0), now).is_some());
            assert_eq!(switch.failure(now), None, "what the probe was about was counted with it");
        }
        now += seconds(35);
        assert_eq!(switch.enter(now), Entry::Now(Pass::Probe));
        assert!(switch.succeeded(Pass::Probe, now));
        let ordinary = Entry::Now(Pass::Ordinary);
        assert_eq!((switch.enter(now), switch.enter(now)), (ordinary, ordinary));
        open(&mut switch, now);
        assert_eq!(switch.enter(now), Entry::Not(Some(now + seconds(10))), "it starts over after it worked");
    }

    #[test]
    fn time_in_failed_calls_opens_it_whatever_goes_well_between() {
        let (mut switch, mut now) = switch(2);
        for _ in 0..11 {
            now += seconds(3);
            assert_eq!(
                switch.failed(Pass::Ordinary, seconds(5), now),
                None,
                "less than half of two instances' minute"
            );
            switch.succeeded(Pass::Ordinary, now);
        }
        assert!(switch.failed(Pass::Ordinary, seconds(5), now).is_some());
    }

    #[test]
    fn time_that_is_long_past_does_not_count() {
        let (mut switch, mut now) = switch(1);
        for _ in 0..20 {
            assert_eq!(switch.failed(Pass::Ordinary, seconds(25), now), None);
            now += seconds(61);
        }
    }

    #[test]
    fn resuming_a_quarantined_receiver_probes_at_once() {
        let (mut switch, now) = switch(1);
        open(&mut switch, now);
        switch.resume(now);
        assert_eq!(switch.enter(now), Entry::Now(Pass::Probe));
        switch.failed(Pass::Probe, seconds(0), now);
        assert_eq!(switch.enter(now), Entry::Not(Some(now + seconds(10))));
    }

    #[tokio::test]
    async fn a_pause_holds_those_who_come_until_it_is_ended() {
        let breaker = Breaker::new(&settings(1), true);
        let mut entering = Box::pin(breaker.enter());
        assert!(entering.as_mut().now_or_never().is_none() && !breaker.is_closed());
        breaker.resume();
        entering.await;
        breaker.pause();
        assert!(breaker.enter().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_probe_that_is_not_made_is_left_to_the_next() {
        let breaker = Breaker::new(&settings(2), false);
        for _ in 0..3 {
            breaker.failure();
        }
        breaker.resume();
        assert_eq!(breaker.enter().await, Pass::Probe);
        let mut second = Box::pin(breaker.enter());
        assert!(second.as_mut().now_or_never().is_none());
        breaker.not_made(Pass::Ordinary);
        assert!(second.as_mut().now_or_never().is_none(), "that was another one");
        breaker.not_made(Pass::Probe);
        assert_eq!(second.await, Pass::Probe);
    }

    #[tokio::test]
    async fn those_who_wait_for_a_probe_go_on_when_it_went_well() {
        let breaker = Breaker::new(&settings(2), false);
        for _ in 0..3 {
            breaker.failure();
        }
        assert!(breaker.enter().now_or_never().is_none());
        breaker.resume();
        assert_eq!(breaker.enter().await, Pass::Probe);
        let mut second = Box::pin(breaker.enter());
        assert!(second.as_mut().now_or_never().is_none());
        breaker.succeeded(Pass::Probe);
        assert_eq!(second.await, Pass::Ordinary);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
