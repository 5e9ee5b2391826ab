use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PAUSE: Duration = Duration::from_millis(100);

fn agents() -> (WaitingAgents, Instant) {
    (WaitingAgents::new(PAUSE), Instant::now())
}

fn offsets(due: &[(u64, Arc<str>)]) -> Vec<u64> {
    due.iter().map(|(offset, _)| *offset).collect()
}

fn lane() -> Lane {
    Lane::new(0).unwrap()
}

#[test]
fn what_comes_behind_a_message_that_waits_is_given_only_after_it() {
    let (mut agents, now) = agents();
    agents.retry("a", lane(), 3, Duration::ZERO, now);
    agents.park("a", lane(), 5);
    agents.park("a", lane(), 9);
    assert_eq!((agents.given(), agents.parked(), agents.len()), (1, 2, 1));
    assert!(agents.due(now, 10).is_empty(), "its pause has only begun");
    let later = now + PAUSE;
    assert_eq!(offsets(&agents.due(later, 10)), [3]);
    assert_eq!(agents.finish("a", 3, 20), Some((lane(), 0..5)));
    assert_eq!(
        offsets(&agents.due(later, 10)),
        [5, 9],
        "nothing is asked again, so the rest follows at once"
    );
    assert_eq!(agents.finish("a", 5, 20), Some((lane(), 0..9)));
    assert_eq!(agents.finish("a", 9, 20), Some((lane(), 0..20)));
    assert!(agents.is_empty() && agents.next_due().is_none());
    assert_eq!(agents.finish("a", 9, 20), None);
}

#[test]
fn a_pause_that_is_asked_for_is_kept_and_grows_by_itself() {
    let (mut agents, now) = agents();
    agents.retry("a", lane(), 3, Duration::from_secs(7), now);
    assert_eq!(agents.next_due(), Some(now + Duration::from_secs(7)));
    let mut now = now + Duration::from_secs(7);
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        agents.retry("a", lane(), 3, Duration::ZERO, now);
        let pause = agents.next_due().unwrap() - now;
        assert!(pause * 2 >= last && pause <= LONGEST_PAUSE, "{pause:?} after {last:?}");
        last = pause;
        now += pause;
    }
    assert!(last >= LONGEST_PAUSE / 2);
}

#[test]
fn of_two_messages_of_a_batch_the_longer_pause_counts() {
    let (mut agents, now) = agents();
    agents.retry("a", lane(), 3, Duration::from_secs(7), now);
    agents.retry("a", lane(), 4, Duration::from_secs(2), now);
    assert_eq!(agents.next_due(), Some(now + Duration::from_secs(7)));
    assert_eq!(offsets(&agents.due(now + Duration::from_secs(7), 10)), [3, 4]);
}

#[test]
fn what_failed_alone_goes_alone_with_its_attempts() {
    let (mut agents, now) = agents();
    agents.retry("a", lane(), 3, Duration::ZERO, now);
    agents.retry_alone("b", lane(), 4, 1, now);
    agents.park("b", lane(), 6);
    let later = now + PAUSE;
    assert_eq!(offsets(&agents.due(later, 10)), [4]);
    assert_eq!((agents.attempts("b", 4), agents.attempts("b", 6), agents.attempts("a", 3)), (1, 0, 0));
    assert!(agents.was_given("b", 4) && !agents.was_given("b", 6));
    agents.retry_alone("b", lane(), 4, 2, later);
    assert_eq!(agents.attempts("b", 4), 2);
    agents.finish("b", 4, 20);
    assert_eq!(agents.attempts("b", 6), 0);
}

#[test]
fn agents_of_a_full_lane_wait_for_room() {
    let (mut agents, now) = agents();
    agents.park("a", lane(), 3);
    assert_eq!((agents.next_due(), agents.given(), agents.parked()), (None, 0, 1));
    agents.room_in(Lane::new(1).unwrap(), now);
    assert_eq!(agents.next_due(), None);
    agents.room_in(lane(), now);
    assert_eq!(offsets(&agents.due(now, 10)), [3]);
}

#[test]
fn what_is_given_at_a_time_is_bounded_and_shared() {
    let (mut agents, now) = agents();
    for agent in ["a", "b", "c"] {
        for place in 0..10 {
            agents.retry(
                agent,
                lane(),
                place * 3 + u64::from(agent.as_bytes()[0] - b'a'),
                Duration::ZERO,
                now,
            );
        }
    }
    let due = agents.due(now + PAUSE, 6);
    assert_eq!(offsets(&due), [0, 1, 2, 3, 4, 5]);
    assert_eq!(agents.due(now + PAUSE, 1).len(), 1);
}

/// What is done with agents in the property below.
#[derive(Clone, Debug)]
enum Step {
    Park(u8),
    Retry(u8),
    Finish(u8),
}

proptest! {
    /// Against the plain truth: per agent the offsets that wait, and of these the first so many were given.
    #[test]
    fn it_knows_what_waits_and_what_was_given(
        steps in prop::collection::vec((0_u8..5, 0_u8..3), 1..200),
    ) {
        let (mut agents, now) = agents();
        let mut truth: BTreeMap<u8, Vec<(u64, bool)>> = BTreeMap::new();
        for (place, (agent, step)) in steps.into_iter().enumerate() {
            let offset = u64::try_from(place).unwrap();
            let name = agent.to_string();
            let lane = Lane::new(agent % 2).unwrap();
            let step = match step { 0 => Step::Park(agent), 1 => Step::Retry(agent), _ => Step::Finish(agent) };
            match step {
                Step::Park(agent) => {
                    agents.park(&name, lane, offset);
                    truth.entry(agent).or_default().push((offset, false));
                }
                Step::Retry(agent) => {
                    // Only what comes first can be given: everything before it is then, too.
                    agents.retry(&name, lane, offset, Duration::ZERO, now);
                    let waits = truth.entry(agent).or_default();
                    waits.push((offset, true));
                    waits.iter_mut().for_each(|wait| wait.1 = true);
                }
                Step::Finish(agent) => {
                    let waits = truth.entry(agent).or_default();
                    if waits.is_empty() {
                        prop_assert_eq!(agents.finish(&name, offset, offset), None);
                        continue;
                    }
                    let (first, _) = waits.remove(0);
                    let (found, span) = agents.finish(&name, first, offset).unwrap();
                    prop_assert_eq!(found, lane);
                    prop_assert!(span.contains(&first));
                    let others = truth.iter().filter(|(other, _)| *other % 2 == agent % 2);
                    let waits: Vec<_> = others.flat_map(|(_, waits)| waits).map(|wait| wait.0).collect();
                    prop_assert!(waits.iter().all(|waits| !span.contains(waits)), "{:?} of {:?}", span, waits);
                    let (before, behind) = (span.start.checked_sub(1), span.end);
                    prop_assert!(before.is_none_or(|before| waits.contains(&before)));
                    prop_assert!(behind == offset || waits.contains(&behind));
                }
            }
            truth.retain(|_, waits| !waits.is_empty());
            let waits = || truth.values().flatten();
            prop_assert_eq!(agents.given(), waits().filter(|wait| wait.1).count());
            prop_assert_eq!(agents.parked(), waits().filter(|wait| !wait.1).count());
            prop_assert_eq!(agents.len(), truth.len());
            for (agent, waits) in &truth {
                let all: Vec<_> = waits.iter().map(|wait| wait.0).collect();
                prop_assert_eq!(agents.offsets(&agent.to_string()), all);
            }
        }
    }
}

#[test]
fn who_waits_for_room_goes_on_when_there_is_some_or_nothing_is_before_it() {
    let (mut agents, now) = agents();
    let other = Lane::new(1).unwrap();
    agents.park("a", lane(), 3);
    agents.park("b", lane(), 5);
    agents.park("c", other, 4);
    assert_eq!(agents.next_due(), None);
    assert!(agents.is_first_in(lane(), 3) && !agents.is_first_in(lane(), 5));
    agents.room_for_first_in(lane(), now);
    assert_eq!(offsets(&agents.due(now, 10)), [3]);
    agents.park("a", lane(), 7);
    agents.finish("a", 3, 10);
    agents.wait_for_room("a");
    assert_eq!(agents.next_due(), None);
    agents.room_for_first_in(lane(), now);
    assert_eq!(offsets(&agents.due(now, 10)), [5], "the first is of another agent now");
    agents.room_in(lane(), now);
    assert_eq!(offsets(&agents.due(now, 10)), [5, 7]);
    assert!(agents.contains("c"));
}

#[test]
fn what_the_cursor_was_moved_beyond_waits_no_longer_and_who_was_behind_it_goes_on() {
    let (mut agents, now) = agents();
    let hour = Duration::from_secs(3600);
    for offset in [1, 4, 9] {
        agents.retry("a", lane(), offset, hour, now);
    }
    agents.retry("b", lane(), 2, hour, now);
    agents.park("b", lane(), 5);
    agents.park("b", lane(), 6);
    agents.retry("c", lane(), 3, hour, now);
    agents.retry("d", Lane::new(1).unwrap(), 0, hour, now);
    agents.pass(lane(), 6, now);
    assert_eq!(offsets(&agents.due(now, 10)), [6]);
    assert_eq!((agents.offsets("a"), agents.offsets("d")), (vec![9], vec![0]));
    assert!(agents.next_due() == Some(now) && !agents.contains("c"));
    assert_eq!((agents.given(), agents.parked(), agents.len()), (2, 1, 3));
    agents.finish("b", 6, 10);
    assert_eq!(agents.next_due(), Some(now + hour), "what was asked for later is not given sooner");
    agents.pass(lane(), 100, now);
    assert_eq!((agents.given(), agents.parked(), agents.len()), (1, 0, 1));
}
