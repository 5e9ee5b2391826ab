//! Compares what was seen over all runs with what was sent and acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use e2e::seen::guest_line;
use e2e::{Log, Seen};
use serde_json::Value;

use super::load::Load;

/// What is repeated after a crash lies within this time before it: the cursor's interval of a tenth of a second, and what a busy
/// machine makes of that.
const CURSOR_WINDOW_SECONDS: f64 = 8.0;

/// One run of the server.
#[derive(Debug)]
pub struct Run {
    /// All that it logged.
    pub log: Log,
    /// Whether cursors may not have been saved for long before its end: its disk was full, or it was not running.
    pub may_repeat_all: bool,
}

/// A message: its agent and its number.
type Key = (String, u64);

/// What the recorder saw of everything.
pub struct Truth<'a> {
    loads: HashMap<&'a str, &'a Load>,
    runs: &'a [Run],
    /// Where each message is.
    places: BTreeMap<Key, (String, u64)>,
}

impl<'a> Truth<'a> {
    /// Checks what the recorder saw, which handles everything at once.
    pub fn new(loads: &'a [Load], runs: &'a [Run]) -> Truth<'a> {
        let loads: HashMap<_, _> = loads.iter().map(|load| (load.agent.as_str(), load)).collect();
        let mut places: BTreeMap<Key, (String, u64)> = BTreeMap::new();
        let mut at: BTreeMap<(String, u64), Key> = BTreeMap::new();
        let mut latest: HashMap<String, u64> = HashMap::new();
        let mut seen_in: BTreeMap<Key, (usize, f64)> = BTreeMap::new();
        for (index, run) in runs.iter().enumerate() {
            // What the server says of lines for which nobody made room in time: without them nothing can be told.
            let dropped = run.log.matching(&["lines of the log were dropped"]);
            assert!(dropped.is_empty(), "the machine was too busy to read the log: {dropped:?}");
            for line in run.log.lines() {
                let Some(seen) = Seen::of_line(&line, "recorder") else { continue };
                let key = key_of(&seen.body);
                let load = loads[key.0.as_str()];
                assert_eq!((&seen.agent, seen.r#type.as_str()), (&load.agent, load.data_type), "{seen:?}");
                assert!(key.1 < load.next && !load.refused.contains(&key.1), "{seen:?} was never accepted");
                assert_eq!(seen.body, load.body(key.1), "{seen:?} was changed");
                let place = (seen.r#type.clone(), seen.offset);
                assert_eq!(at.entry(place.clone()).or_insert_with(|| key.clone()), &key, "two at {place:?}");
                match places.get(&key) {
                    Some(first) => {
                        assert_eq!(first, &place, "{seen:?} was stored once and has two offsets");
                        assert_eq!(seen.redelivery, "again", "{seen:?} came before");
                        let (run_before, time) = seen_in[&key];
                        assert!(run_before < index, "{seen:?} came again without a reason");
                        let before = &runs[run_before];
                        let end = before.log.lines().iter().rev().find_map(|line| time_of(line)).unwrap();
                        // Past midnight, the end has the smaller number; and lines of two threads may be in another order than
                        // their times.
                        let age = (end - time + 43_200.0).rem_euclid(86_400.0) - 43_200.0;
                        assert!(
                            age < CURSOR_WINDOW_SECONDS || before.may_repeat_all,
                            "{seen:?} was handled {age} s before the end of its run and came again"
                        );
                    }
                    None => {
                        let number_before = latest.insert(key.0.clone(), key.1);
                        assert!(
                            number_before.is_none_or(|before| before < key.1),
                            "{seen:?} overtook {number_before:?}"
                        );
                        places.insert(key.clone(), place);
                    }
                }
                seen_in.insert(key, (index, time_of(&line).unwrap()));
            }
        }
        let truth = Truth { loads, runs, places };
        truth.expect_all("recorder", &truth.places.keys().cloned().collect());
        truth
    }

    /// Checks what a puppet handled and what became its dead letters.
    pub fn check_puppet(&self, receiver: &str, dead: &[(String, u64)], in_order: bool) {
        let at: BTreeMap<&(String, u64), &Key> =
            self.places.iter().map(|(key, place)| (place, key)).collect();
        let mut done: BTreeSet<Key> = BTreeSet::new();
        for place in dead {
            let key = at.get(place).unwrap_or_else(|| panic!("no message lies at {place:?}"));
            assert!(
                self.loads[key.0.as_str()].is_deadly(key.1),
                "{key:?} became a dead letter of {receiver}"
            );
            done.insert((*key).clone());
        }
        let mut latest: HashMap<String, u64> = HashMap::new();
        for line in self.runs.iter().flat_map(|run| run.log.lines()) {
            let text = guest_line(&line, receiver, "stdout").and_then(|text| text.strip_prefix("handled "));
            let Some((offset, body)) = text.and_then(|text| text.split_once(' ')) else { continue };
            let body: Value = serde_json::from_str(body).unwrap();
            let key = key_of(&body);
            let load = self.loads[key.0.as_str()];
            assert!(!load.is_deadly(key.1), "{key:?} was handled by {receiver}");
            assert_eq!(body, load.body(key.1), "{key:?} was changed");
            let place = (load.data_type.to_owned(), offset.parse().unwrap());
            assert_eq!(self.places.get(&key), Some(&place), "{key:?} of {receiver}");
            if done.insert(key.clone()) && in_order {
                let before = latest.insert(key.0.clone(), key.1);
                assert!(
                    before.is_none_or(|before| before < key.1),
                    "{key:?} overtook {before:?} at {receiver}"
                );
            }
        }
        self.expect_all(receiver, &done);
    }

    fn expect_all(&self, receiver: &str, done: &BTreeSet<Key>) {
        for load in self.loads.values() {
            for number in &load.accepted {
                let key = (load.agent.clone(), *number);
                assert!(done.contains(&key), "{key:?} was acknowledged, and {receiver} did not get it");
            }
        }
    }

    /// Says how much was tried, and that it is enough to show anything.
    pub fn report(&self, runs: usize) {
        let accepted: usize = self.loads.values().map(|load| load.accepted.len()).sum();
        let refused: usize = self.loads.values().map(|load| load.refused.len()).sum();
        println!("{accepted} messages acknowledged, {refused} refused, in {runs} runs of the server");
        assert!(accepted > 5_000 && runs > 4, "{accepted} messages in {runs} runs are too few");
    }
}

fn key_of(body: &Value) -> Key {
    let known = body["agent"].as_str().zip(body["number"].as_u64());
    let (agent, number) = known.unwrap_or_else(|| panic!("{body} was never sent"));
    (agent.to_owned(), number)
}

/// The time of a line of the log, in seconds of its day.
fn time_of(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once('T')?;
    let (time, _) = rest.split_once('Z')?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}
