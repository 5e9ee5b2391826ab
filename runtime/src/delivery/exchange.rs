//! Puts another version in the place of a receiver while messages flow: its workers leave their lanes between two batches, what
//! they know is handed over, and either all of the new version's instances go on from there, or all of the old one's.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use thiserror::Error;
use wharf_host::{Fault, Instance, Receiver, SavedState};
use wharf_log::{Lane, Topic};
use wharf_state::StateError;

use super::feeding::Inherited;
use super::halt::{HaltError, Halted, Patience};
use super::progress::Progress;
use super::window::{LaneCount, Window};
use super::{Delivery, Feeding, Mapped};
use crate::config;

/// What comes in the place of a receiver.
pub struct Replacement {
    /// Its settings.
    pub settings: config::Receiver,
    /// Its component, loaded.
    pub receiver: Receiver,
    /// As many instances as its settings say, each after its `init`.
    pub instances: Vec<Instance>,
    /// The data types mapped to it, and the cursors.
    pub mapped: Mapped,
}

/// On what terms.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long a call that is running is waited for.
    pub patience: Duration,
    /// Whether the new version may begin without what the old one knows.
    pub drop_state: bool,
    /// What an instance of the new version gets if the old one can give no snapshot, by worker.
    pub fallback: Vec<Option<SavedState>>,
}

/// What was handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Snapshots that were restored.
    pub snapshots: usize,
    /// Their formats, each once.
    pub formats: Vec<String>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Why the state of some instances was not handed over, each reason once.
    pub dropped: Vec<String>,
    /// The workers whose instances got an older snapshot, because there was no new one.
    pub older: Vec<usize>,
}

/// What came of it.
#[derive(Debug)]
pub struct Exchanged {
    /// The receiver as it is fed from now on.
    pub feeding: Arc<Feeding>,
    /// What was handed over.
    pub handover: Handover,
    /// The snapshots of the version that went, by worker.
    pub snapshots: Vec<Option<SavedState>>,
    /// How long each instance did not work.
    pub pauses: Vec<Duration>,
    /// What becomes of the messages around it, by data type.
    pub windows: Vec<OpenWindow>,
}

/// A window, and what it is about.
#[derive(Clone, Debug)]
pub struct OpenWindow {
    /// The data type.
    pub topic: Topic,
    /// Its offsets.
    pub offsets: Range<u64>,
    progress: Arc<Progress>,
    window: Arc<Window>,
}

/// Why the old version goes on.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// A call of it does not end.
    #[error(transparent)]
    Halt(#[from] HaltError),
    /// A call of it does not end, and ending it would lose what it knows.
    #[error(
        "hand over its state: an instance was in a call for longer than swap-timeout ({waited:?}); to end the call and lose that state, say --drop-state"
    )]
    Stuck {
        /// How long it was waited for.
        waited: Duration,
    },
    /// What it knows can't be handed over.
    #[error("hand over its state: {why}; to begin without it, say --drop-state")]
    NoSnapshot {
        /// Why.
        why: String,
    },
    /// The new version does not take it.
    #[error("restore its state in the new version: {why}")]
    Restore {
        /// What it said.
        why: String,
    },
    /// It can't be written down.
    #[error(transparent)]
    State(#[from] StateError),
    /// The server ends, or has a defect.
    #[error("wait for a task of the swap")]
    Task(#[from] tokio::task::JoinError),
}

impl OpenWindow {
    /// Which messages it is about.
    ///
    /// # Errors
    ///
    /// When the log can't be read.
    pub async fn accepted(&self) -> Result<Vec<(Lane, u64)>, wharf_log::ReadError> {
        self.window.accepted(&self.topic, self.offsets.end).await
    }

    /// What became of these by now, by lane.
    pub fn count(&self, accepted: &[(Lane, u64)]) -> Vec<(Lane, LaneCount)> {
        self.window.count(accepted, &self.progress)
    }
}

impl Drop for OpenWindow {
    fn drop(&mut self) {
        self.progress.counting().close(&self.window);
    }
}

impl Delivery {
    /// Makes as many instances of a component as it is to have, each after its `init`. None is kept if one fails.
    ///
    /// # Errors
    ///
    /// What was wrong with the first that failed.
    pub async fn instantiate(
        &self,
        receiver: &Receiver,
        count: usize,
    ) -> Result<Result<Vec<Instance>, Fault>, tokio::task::JoinError> {
        let receiver = receiver.clone();
        let making = self.means.guests.spawn(async move {
            let mut instances = Vec::new();
            for _ in 0..count.max(1) {
                match receiver.instantiate().await {
                    Ok(instance) => instances.push(instance),
                    Err(fault) => {
                        terminate(instances, &receiver).await;
                        return Err(fault);
                    }
                }
            }
            Ok(instances)
        });
        making.await
    }

    /// Puts `new` in the place of `old`. `commit` writes down durably that it is so, and may block on the disk; if it fails, it
    /// is not so.
    ///
    /// # Errors
    ///
    /// Nothing has changed then: the old version goes on.
    pub async fn exchange(
        &self,
        old: &Arc<Feeding>,
        new: Replacement,
        terms: Terms,
        commit: impl FnOnce(&Handover) -> Result<(), StateError> + Send + 'static,
    ) -> Result<Exchanged, ExchangeError> {
        let windows: Vec<_> = old
            .mapped
            .iter()
            // What becomes of the messages of a data type that leaves is not this exchange's doing.
            .filter(|(_, progress)| new.mapped.iter().any(|(_, stays)| Arc::ptr_eq(stays, progress)))
            .map(|(feed, progress)| {
                let window = progress.open_window(old.version, &feed.topic);
                (feed.topic.clone(), progress.clone(), window)
            })
            .collect();
        let close = || windows.iter().for_each(|(_, progress, window)| progress.counting().close(window));
        let hands_over = old.receiver.hands_over();
        let patience = if hands_over && !terms.drop_state {
            Patience::Within(terms.patience)
        } else {
            Patience::ThenAbandon(terms.patience)
        };
        let halted = match old.steered.halt.halt(patience).await {
            Ok(halted) => halted,
            Err(HaltError { waited }) => {
                close();
                return Err(match patience {
                    Patience::Within(_) => ExchangeError::Stuck { waited },
                    _ => HaltError { waited }.into(),
                });
            }
        };
        let handed = match self.hand_over(old, &halted, new, terms, commit).await {
            Ok(handed) => handed,
            Err(error) => {
                close();
                return Err(error);
            }
        };
        let HandedOver { settings, receiver, instances, mapped, handover, snapshots, old_instances } = handed;
        let name = settings.name.clone();
        let prepared = self.controls.replace(&name, |paused| {
            let inherited = Inherited { before: Some(old), instances };
            let prepared = Feeding::prepare((settings, receiver), mapped, paused, inherited, &self.means);
            (prepared.feeding().steered.clone(), prepared)
        });
        let arrivals = halted.arrivals();
        let windows = windows
            .into_iter()
            .map(|(topic, progress, window)| {
                let offsets = window.from()..window.to(topic.end());
                OpenWindow { topic, offsets, progress, window }
            })
            .collect();
        // The old workers end where they are; nobody gives them another turn.
        old.end();
        self.remember(old);
        let feeding = prepared.start(&self.means);
        let pauses = arrivals.into_iter().map(|arrived| arrived.elapsed()).collect();
        {
            let mut fed = self.fed.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = fed.iter_mut().find(|fed| fed.settings.name == name) {
                *place = feeding.clone();
            }
        }
        drop(halted);
        let old_receiver = old.receiver.clone();
        self.means.guests.spawn(async move { terminate(old_instances, &old_receiver).await });
        Ok(Exchanged { feeding, handover, snapshots, pauses, windows })
    }

    /// Hands over what the old instances know, and writes down that it is so. If that fails, the old instances are where they
    /// were, and the new ones are gone.
    async fn hand_over(
        &self,
        old: &Arc<Feeding>,
        halted: &Halted,
        new: Replacement,
        terms: Terms,
        commit: impl FnOnce(&Handover) -> Result<(), StateError> + Send + 'static,
    ) -> Result<HandedOver, ExchangeError> {
        let (mut old_instances, made_anew) = (halted.take_instances(), halted.made_anew());
        let Replacement { settings, receiver, instances, mapped } = new;
        let (hands_over, new_receiver) = (old.receiver.hands_over(), receiver.clone());
        let mut instances = instances;
        // On the runtime of guests, because these are calls of guests.
        let handing = self.means.guests.spawn(async move {
            let handed = if hands_over {
                hand_over((&mut old_instances, &made_anew), &mut instances, &new_receiver, &terms).await
            } else {
                Ok((Handover::default(), Vec::new()))
            };
            (handed, old_instances, instances)
        });
        let (handed, old_instances, instances) = handing.await?;
        let committed = match handed {
            Ok((handover, snapshots)) => {
                let written = handover.clone();
                match tokio::task::spawn_blocking(move || commit(&written)).await? {
                    Ok(()) => Ok((handover, snapshots)),
                    Err(error) => Err(ExchangeError::State(error)),
                }
            }
            Err(error) => Err(error),
        };
        match committed {
            Ok((handover, snapshots)) => Ok(HandedOver {
                settings,
                receiver,
                instances,
                mapped,
                handover,
                snapshots,
                old_instances: old_instances.into_iter().flatten().collect(),
            }),
            Err(error) => {
                halted.put_back(old_instances);
                self.means.guests.spawn(async move { terminate(instances, &receiver).await });
                Err(error)
            }
        }
    }
}

/// Everything that is needed for the new version to go on.
struct HandedOver {
    settings: config::Receiver,
    receiver: Receiver,
    instances: Vec<Instance>,
    mapped: Mapped,
    handover: Handover,
    snapshots: Vec<Option<SavedState>>,
    old_instances: Vec<Instance>,
}

/// Takes a snapshot of every old instance and restores it in the new instance that owns its lowest lane.
///
/// Where an older snapshot can be fallen back on, an instance that was made anew after a fault counts for nothing: it knows less.
async fn hand_over(
    (old, made_anew): (&mut [Option<Instance>], &[bool]),
    new: &mut [Instance],
    new_receiver: &Receiver,
    terms: &Terms,
) -> Result<(Handover, Vec<Option<SavedState>>), ExchangeError> {
    let mut handover = Handover::default();
    let mut snapshots = Vec::new();
    for (worker, instance) in old.iter_mut().enumerate() {
        let can_fall_back = terms.fallback.get(worker).is_some_and(Option::is_some);
        let is_anew = made_anew.get(worker).copied().unwrap_or(false);
        let snapshot = match instance.as_mut().filter(|_| !(is_anew && can_fall_back)) {
            None => Err("an instance had failed, and what it knew is gone".to_owned()),
            Some(instance) => match instance.snapshot().await {
                Ok(snapshot) => snapshot.ok_or_else(|| "an instance has none".to_owned()),
                Err(fault) => Err(format!("snapshot failed: {fault}")),
            },
        };
        snapshots.push(snapshot);
    }
    let mut fallback = terms.fallback.iter();
    let mut restored = Vec::new();
    for (worker, snapshot) in snapshots.into_iter().enumerate() {
        let older = fallback.next().cloned().flatten();
        let why = match snapshot {
            Ok(snapshot) if new_receiver.hands_over() => {
                restored.push(Some(snapshot));
                continue;
            }
            Ok(_) => "the new version does not export `handover`".to_owned(),
            Err(why) => {
                if let Some(older) = older {
                    handover.older.push(worker);
                    restored.push(Some(older));
                    continue;
                }
                why
            }
        };
        if !terms.drop_state {
            return Err(ExchangeError::NoSnapshot { why });
        }
        if !handover.dropped.contains(&why) {
            handover.dropped.push(why);
        }
        restored.push(None);
    }
    let instances = new.len().max(1);
    for (worker, snapshot) in restored.iter().enumerate() {
        let Some(snapshot) = snapshot else { continue };
        // Its lowest lane is the one of its own number.
        let owner = worker.checked_rem(instances).unwrap_or(0);
        let Some(instance) = new.get_mut(owner) else { continue };
        let older = terms.fallback.get(worker).and_then(Option::as_ref);
        let taken = match (restore(instance, snapshot).await, older) {
            (Ok(()), _) => snapshot,
            (Err(_), Some(older)) if older != snapshot => {
                restore(instance, older).await?;
                handover.older.push(worker);
                older
            }
            (Err(error), _) => return Err(error),
        };
        handover.snapshots += 1;
        handover.bytes =
            handover.bytes.saturating_add(u64::try_from(taken.payload.len()).unwrap_or(u64::MAX));
        if !handover.formats.contains(&taken.format) {
            handover.formats.push(taken.format.clone());
        }
    }
    Ok((handover, restored))
}

async fn restore(instance: &mut Instance, snapshot: &SavedState) -> Result<(), ExchangeError> {
    match instance.restore(snapshot).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(ExchangeError::Restore { why }),
        Err(fault) => Err(ExchangeError::Restore { why: fault.to_string() }),
    }
}

/// Lets instances that nobody needs any more end in an orderly way.
pub(super) async fn terminate(instances: Vec<Instance>, receiver: &Receiver) {
    for instance in instances {
        if let Err(fault) = instance.terminate().await {
            tracing::warn!(receiver.name = receiver.name(), %fault, "a receiver's terminate failed");
        }
    }
}
