//! The numbers of swaps.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{ProbationLabel, ReceiverLabel, SwapLabel, family, seconds};

/// What came of swaps.
#[derive(Debug)]
pub struct SwapNumbers {
    done: Family<SwapLabel, Counter>,
    probations: Family<ProbationLabel, Counter>,
    pauses: Family<ReceiverLabel, Histogram>,
    lost: Family<ReceiverLabel, Counter>,
}

impl SwapNumbers {
    /// In this registry.
    pub(super) fn new(registry: &mut Registry) -> SwapNumbers {
        SwapNumbers {
            done: family(registry, "swaps", "Exchanges of the component of a receiver, by what came of them"),
            probations: family(
                registry,
                "swap_probations",
                "Probations of new versions of a receiver that are over, by how they ended",
            ),
            pauses: seconds(
                registry,
                "swap_pause_seconds",
                "How long each instance of a receiver did not work at a swap",
            ),
            lost: family(
                registry,
                "swap_messages_lost",
                "Messages around swaps of which nobody knows how they were finished",
            ),
        }
    }

    /// Lets those of a receiver begin at 0, for these kinds and outcomes of swaps and outcomes of probations.
    pub fn begin(
        &self,
        receiver: &str,
        done: impl IntoIterator<Item = (&'static str, &'static str)>,
        probations: impl IntoIterator<Item = &'static str>,
    ) {
        for (kind, outcome) in done {
            drop(self.done.get_or_create(&SwapLabel { receiver: receiver.to_owned(), kind, outcome }));
        }
        for outcome in probations {
            let label = ProbationLabel { receiver: receiver.to_owned(), outcome };
            drop(self.probations.get_or_create(&label));
        }
        let label = ReceiverLabel::new(receiver);
        drop(self.pauses.get_or_create(&label));
        drop(self.lost.get_or_create(&label));
    }

    /// Counts an exchange.
    pub fn done(&self, receiver: &str, kind: &'static str, outcome: &'static str) {
        self.done.get_or_create(&SwapLabel { receiver: receiver.to_owned(), kind, outcome }).inc();
    }

    /// Counts a probation that is over.
    pub fn proved(&self, receiver: &str, outcome: &'static str) {
        self.probations.get_or_create(&ProbationLabel { receiver: receiver.to_owned(), outcome }).inc();
    }

    /// An instance did not work for so many seconds.
    pub fn paused(&self, receiver: &str, seconds: f64) {
        self.pauses.get_or_create(&ReceiverLabel::new(receiver)).observe(seconds);
    }

    /// Counts messages of which nobody knows how they were finished.
    pub fn lost(&self, receiver: &str, messages: u64) {
        self.lost.get_or_create(&ReceiverLabel::new(receiver)).inc_by(messages);
    }
}
