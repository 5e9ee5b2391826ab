//! What happens to a server, at random.

use proptest::prelude::*;
use proptest::sample::Index;

use super::AGENTS;

#[derive(Clone, Debug)]
pub enum Step {
    /// Records of these agents become one block. `true`: a change of presence.
    Append(Vec<(usize, bool)>),
    /// A worker gives its receiver what is due or what is new, or looks where it is if there is nothing.
    Work {
        worker: usize,
        due_first: bool,
        keeper_between: bool,
        calls: Vec<Call>,
    },
    Save,
    /// Everything goes that every lane has finished.
    Trim,
    /// To the oldest, to the newest, or to an offset between.
    Seek(Option<Index>),
    Stop {
        instances: usize,
    },
    Crash {
        instances: usize,
    },
}

pub fn step() -> impl Strategy<Value = Step> {
    let work = (0..3_usize, any::<bool>(), prop::bool::weighted(0.3), prop::collection::vec(call(), 0..4));
    let record = (0..AGENTS, prop::bool::weighted(0.1));
    prop_oneof![
        6 => prop::collection::vec(record, 1..9).prop_map(Step::Append),
        14 => work.prop_map(|(worker, due_first, keeper_between, calls)|
            Step::Work { worker, due_first, keeper_between, calls }),
        3 => Just(Step::Save),
        3 => Just(Step::Trim),
        1 => prop::option::weighted(0.7, any::<Index>()).prop_map(Step::Seek),
        1 => (1..4_usize).prop_map(|instances| Step::Stop { instances }),
        2 => (1..4_usize).prop_map(|instances| Step::Crash { instances }),
    ]
}

/// How a call ends. Where there is no more of these, everything is handled.
#[derive(Clone, Debug)]
pub struct Call {
    pub fate: Fate,
    /// For each message in turn, from the first one again where there are more messages.
    pub verdicts: Vec<Verdict>,
    /// Whether the cursors are saved while it runs.
    pub saved_meanwhile: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Answered,
    Failed,
    /// The host kept the guest waiting.
    Interrupted,
    /// The server ends.
    Crashed,
}

#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    Handled,
    Retry,
    Reject,
}

fn call() -> impl Strategy<Value = Call> {
    let fate = prop_oneof![
        12 => Just(Fate::Answered),
        4 => Just(Fate::Failed),
        1 => Just(Fate::Interrupted),
        1 => Just(Fate::Crashed),
    ];
    let verdict =
        prop_oneof![3 => Just(Verdict::Handled), 2 => Just(Verdict::Retry), 1 => Just(Verdict::Reject)];
    let verdicts = prop::collection::vec(verdict, 1..5);
    (fate, verdicts, prop::bool::weighted(0.2)).prop_map(|(fate, verdicts, saved_meanwhile)| Call {
        fate,
        verdicts,
        saved_meanwhile,
    })
}
