//! What became of one connection's messages.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use wharf_protocol::{Answer, Refusal};

use super::{latencies::Recorder, live::Live, schedule::Schedule};
use crate::client::{ClientError, is_transient};

/// A frame that was sent so much later than it could have been shows in the latencies: about what a server takes to answer.
const LATE: Duration = Duration::from_millis(1);

/// The pause after an answer `overloaded` that does not ask for one, and the longest that is taken: long pauses would
/// measure the pauses.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// Steps in which frames that were not sent are recorded. There may be millions, at times that lie evenly.
const UNSENT_STEPS: u64 = 10_000;

/// Counts of one connection. Frames of the warm-up count only where they failed.
#[derive(Debug)]
pub struct Tally {
    /// Messages of frames that were sent.
    pub sent: u64,
    /// Messages that were acknowledged.
    pub accepted: u64,
    /// Messages that were refused, by code, in the warm-up too.
    pub refused: BTreeMap<&'static str, u64>,
    /// Messages that were sent and never answered, in the warm-up too.
    pub unanswered: u64,
    /// Messages that were due and never sent.
    pub unsent: u64,
    /// Messages that this program sent late, though the server would have taken them.
    pub late: u64,
    /// When the last answer came that counts.
    pub last_answer: Option<Instant>,
    /// Why the connection ended early, if it did.
    pub failure: Option<ClientError>,
    counted_from: Instant,
    calls_per_frame: u64,
    recorder: Recorder,
    live: Option<Live>,
}

impl Tally {
    /// A tally in which nothing is counted yet.
    pub fn new(counted_from: Instant, calls_per_frame: u16, recorder: Recorder, live: Option<Live>) -> Self {
        Self {
            sent: 0,
            accepted: 0,
            refused: BTreeMap::new(),
            unanswered: 0,
            unsent: 0,
            late: 0,
            last_answer: None,
            failure: None,
            counted_from,
            calls_per_frame: calls_per_frame.into(),
            recorder,
            live,
        }
    }

    /// From when on frames count.
    pub fn counted_from(&self) -> Instant {
        self.counted_from
    }

    /// A frame goes out whose latency counts from `since`. It could have gone out at `possible`.
    pub fn send(&mut self, now: Instant, since: Instant, possible: Instant) {
        if since < self.counted_from {
            return;
        }
        self.sent = self.sent.saturating_add(self.calls_per_frame);
        if now.saturating_duration_since(possible) > LATE {
            self.late = self.late.saturating_add(self.calls_per_frame);
        }
    }

    /// Counts an answer, and gives the pause that it asks for.
    pub fn answer(&mut self, now: Instant, since: Instant, answer: Answer) -> Option<Duration> {
        let refusals: Vec<(u64, Refusal)> = match answer {
            Answer::Success { .. } => Vec::new(),
            Answer::Error { refusal, .. } => vec![(self.calls_per_frame, refusal)],
            Answer::Batch { errors, .. } => errors.into_iter().map(|(_, refusal)| (1, refusal)).collect(),
        };
        let mut pause = None;
        let mut refused = 0_u64;
        for (count, refusal) in refusals {
            refused = refused.saturating_add(count);
            let of_code = self.refused.entry(refusal.code.as_str()).or_default();
            *of_code = of_code.saturating_add(count);
            if is_transient(refusal.code) {
                let asked_for = refusal.retry_after_ms.map_or(OVERLOAD_PAUSE, Duration::from_millis);
                pause = Some(asked_for.min(OVERLOAD_PAUSE));
            }
        }
        let accepted = self.calls_per_frame.saturating_sub(refused);
        let latency = now.saturating_duration_since(since);
        if let Some(live) = &self.live {
            live.answered(accepted, refused, latency);
        }
        if since >= self.counted_from {
            self.last_answer = Some(now);
            self.accepted = self.accepted.saturating_add(accepted);
            self.recorder.record(latency, 1);
        }
        pause
    }

    /// Frames that nobody will answer any more, sent or due at these times. How long they had waited until now is the
    /// least that their answers would have taken.
    pub fn give_up(&mut self, now: Instant, frames: impl IntoIterator<Item = Instant>) {
        for since in frames {
            self.unanswered = self.unanswered.saturating_add(self.calls_per_frame);
            if since >= self.counted_from {
                self.recorder.record(now.saturating_duration_since(since), 1);
            }
        }
    }

    /// Frames that were due before `until` and were not sent. Those that wait already count with the time they have waited:
    /// to leave them out would be to measure only what a slow server let through.
    pub fn leave_unsent(&mut self, now: Instant, until: Instant, mut schedule: Schedule) {
        schedule.advance(schedule.due_before(self.counted_from));
        let unsent = schedule.due_before(until);
        self.unsent = self.unsent.saturating_add(unsent.saturating_mul(self.calls_per_frame));
        let mut waiting = schedule.due_before(until.min(now));
        let step = waiting.div_ceil(UNSENT_STEPS);
        while waiting > 0 {
            let frames = step.min(waiting);
            self.recorder.record(now.saturating_duration_since(schedule.due()), frames);
            schedule.advance(frames);
            waiting = waiting.saturating_sub(frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_protocol::Code;

    use super::{
        super::{latencies::Recorders, schedule::Rate},
        *,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn tally(counted_from: Instant, calls_per_frame: u16) -> (Tally, Recorders) {
        let recorders = Recorders::new(1).unwrap();
        let recorder = recorders.each().next().unwrap().clone();
        (Tally::new(counted_from, calls_per_frame, recorder, None), recorders)
    }

    fn success() -> Answer {
        Answer::Success { reference: None, token: None }
    }

    #[test]
    fn the_warm_up_counts_only_where_it_failed() {
        let start = Instant::now();
        let (mut tally, recorders) = tally(start + SECOND, 4);
        tally.send(start, start, start);
        tally.answer(start + 2 * SECOND, start, success());
        let refusal = Refusal::new(Code::UnknownType, "no such type");
        tally.answer(start, start, Answer::Error { reference: None, refusal });
        tally.give_up(start, [start]);
        assert_eq!((tally.sent, tally.accepted, tally.unanswered), (0, 0, 4));
        assert_eq!(tally.refused, BTreeMap::from([("unknown_type", 4)]));
        assert_eq!((tally.last_answer, recorders.sum().unwrap().len()), (None, 0));
    }

    #[test]
    fn only_what_the_server_would_have_taken_is_sent_late() {
        let start = Instant::now();
        let (mut tally, _) = tally(start, 1);
        let due = start + SECOND;
        // The window was full until the third second.
        tally.send(start + 3 * SECOND, due, start + 3 * SECOND);
        assert_eq!(tally.late, 0);
        tally.send(start + 3 * SECOND, due, due);
        assert_eq!((tally.late, tally.sent), (1, 2));
    }

    #[test]
    fn parts_of_a_batch_are_refused_and_a_pause_is_bounded() {
        let start = Instant::now();
        let (mut tally, _) = tally(start, 10);
        let mut refusal = Refusal::new(Code::Overloaded, "wait");
        refusal.retry_after_ms = Some(60_000);
        let errors = vec![(3, refusal), (7, Refusal::new(Code::UnknownType, "no"))];
        let pause = tally.answer(start, start, Answer::Batch { reference: None, accepted: 8, errors });
        assert_eq!(pause, Some(OVERLOAD_PAUSE));
        assert_eq!(tally.accepted, 8);
        assert_eq!(tally.refused, BTreeMap::from([("overloaded", 1), ("unknown_type", 1)]));
    }

    #[test]
    fn what_was_due_and_never_sent_has_waited() {
        let start = Instant::now();
        let (mut tally, recorders) = tally(start + SECOND, 1);
        let rate = Rate { messages_per_second: 100_000, batch: 1, connections: 1 };
        // Nothing was sent in ten seconds, and the schedule has two more.
        tally.leave_unsent(start + 10 * SECOND, start + 12 * SECOND, Schedule::new(start, rate, 0));
        assert_eq!(tally.unsent, 1_100_000);
        let latencies = recorders.sum().unwrap();
        assert_eq!(latencies.len(), 900_000);
        assert_eq!(latencies.max() / 1_000_000, 9);
        assert_eq!(latencies.value_at_quantile(0.5) / 100_000, 45);
    }
}
