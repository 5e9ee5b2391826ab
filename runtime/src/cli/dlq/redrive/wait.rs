//! What becomes of dead letters that are redriven. One that is gone is finished; one whose time of death has changed is dead
//! again; one that is neither queued nor under way and as it was, a server has forgotten because it was started again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::cli::admin::Server;
use crate::cli::dlq::{Damaged, Page, Selection, page, print};
use crate::cli::progress;
use crate::cli::table::printable;

/// How often it is looked. A look is a page for a thousand letters.
const PAUSE: Duration = Duration::from_millis(250);

/// Letters that are waited for, with the time of the death of each before.
#[derive(Debug)]
pub struct Pending(BTreeMap<u64, u64>);

/// What became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Their messages are finished, or somebody dropped them.
    pub finished: Vec<u64>,
    /// Their messages could not be handled this time either.
    pub dead_again: Vec<u64>,
    /// They were not given to their receiver.
    pub not_redriven: Vec<u64>,
}

#[derive(Deserialize)]
struct Letter {
    id: u64,
    died_at: u64,
    state: String,
    kind: String,
    reason: String,
}

impl Pending {
    /// The letters of a selection before they are queued.
    pub async fn before(
        server: &Server,
        receiver: &str,
        selection: &Selection,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Pending> {
        let mut pending = BTreeMap::new();
        for range in selection.ranges() {
            let mut first = Some(*range.start());
            while let Some(from) = first {
                let Page { letters, next, .. } =
                    page::<Letter>(server, receiver, from..=*range.end(), shutdown).await?;
                pending.extend(letters.into_iter().map(|letter| (letter.id, letter.died_at)));
                first = next;
            }
        }
        Ok(Pending(pending))
    }

    /// Waits until all have ended, and tells each as it does.
    pub async fn wait(
        mut self,
        server: &Server,
        receiver: &str,
        tell: bool,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let bar = progress::done_of(self.0.len(), "redriven");
        let mut ended = Ended::default();
        loop {
            let told = self.look(server, receiver, &mut ended, shutdown).await?;
            bar.set_position(u64::try_from(ended.count()).unwrap_or(u64::MAX));
            if tell && !told.is_empty() {
                bar.suspend(|| print(&told))?;
            }
            if self.0.is_empty() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => bail!("interrupted: {} are not finished yet", self.0.len()),
            }
        }
        bar.finish_and_clear();
        Ok(ended)
    }

    /// Looks once, moves those that have ended to where they belong, and gives the lines that tell it.
    async fn look(
        &mut self,
        server: &Server,
        receiver: &str,
        ended: &mut Ended,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<String> {
        let (Some(first), Some(last)) = (self.0.keys().next().copied(), self.0.keys().next_back().copied())
        else {
            return Ok(String::new());
        };
        let (mut there, mut told) = (BTreeSet::new(), String::new());
        let mut next = Some(first);
        while let Some(from) = next {
            let page = page::<Letter>(server, receiver, from..=last, shutdown).await?;
            next = page.next;
            for letter in page.letters {
                there.insert(letter.id);
                self.see(&letter, ended, &mut told);
            }
            for Damaged { id, .. } in page.damaged {
                there.insert(id);
                // It was whole when it was queued, and can't be given to anybody now.
                if self.0.remove(&id).is_some() {
                    ended.not_redriven.push(id);
                    told.push_str(&format!("{id}: not redriven\n"));
                }
            }
        }
        let gone: Vec<u64> = self.0.keys().copied().filter(|id| !there.contains(id)).collect();
        for id in gone {
            self.0.remove(&id);
            ended.finished.push(id);
            told.push_str(&format!("{id}: finished\n"));
        }
        Ok(told)
    }

    /// A letter that is still there.
    fn see(&mut self, letter: &Letter, ended: &mut Ended, told: &mut String) {
        let Letter { id, died_at, state, kind, reason } = letter;
        let Some(before) = self.0.get(id) else { return };
        if died_at != before {
            ended.dead_again.push(*id);
            told.push_str(&format!("{id}: dead again, {}: {}\n", printable(kind), printable(reason)));
        } else if state == "dead" {
            ended.not_redriven.push(*id);
            told.push_str(&format!("{id}: not redriven\n"));
        } else {
            return;
        }
        self.0.remove(id);
    }
}

impl Ended {
    /// How many are still dead.
    pub fn failed(&self) -> usize {
        self.dead_again.len().saturating_add(self.not_redriven.len())
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.finished.len().saturating_add(self.failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_is_there_is_under_way_dead_again_or_forgotten() {
        let mut pending = Pending([(1, 100), (2, 100), (3, 100), (4, 100)].into());
        let (mut ended, mut told) = (Ended::default(), String::new());
        for (id, died_at, state) in
            [(1, 100, "queued"), (2, 100, "redriving"), (3, 250, "dead"), (4, 100, "dead"), (5, 100, "dead")]
        {
            let (kind, reason) = ("rejected".to_owned(), "no\u{1b}".to_owned());
            pending.see(
                &Letter { id, died_at, state: state.to_owned(), kind, reason },
                &mut ended,
                &mut told,
            );
        }
        assert_eq!(pending.0.into_keys().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(ended, Ended { finished: vec![], dead_again: vec![3], not_redriven: vec![4] });
        assert_eq!(told, "3: dead again, rejected: no\u{fffd}\n4: not redriven\n");
    }
}
