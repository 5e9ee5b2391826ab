//! Receivers come and go while the server runs: places in their data types for those that are to come, and an end between two
//! batches for those that go.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use wharf_host::{Instance, Receiver};
use wharf_log::Durability;
use wharf_state::Persist;

use super::exchange::terminate;
use super::feeding::Inherited;
use super::halt::Patience;
use super::progress::Progress;
use super::{Delivery, DeliveryError, Fed, Feed, Feeding, Feeds, Mapped};
use crate::config;
use crate::data_dir::DataDir;

/// How long the workers of a receiver that goes may take beyond a call: they have to be waited for by a disk at most.
const END_GRACE: Duration = Duration::from_secs(10);

/// The data types and cursors of receivers that are to be fed with these.
#[derive(Debug, Default)]
pub struct TakenPlaces {
    /// By receiver.
    mapped: HashMap<String, Mapped>,
    /// Those that were not there in this run.
    fresh: Vec<Arc<Progress>>,
    /// Those of the fresh ones of which nothing was written down before.
    created: Vec<Arc<Progress>>,
    /// Those of receivers that left in this run.
    returned: Vec<Arc<Progress>>,
    /// What was written down as known before.
    known_before: Vec<(String, String)>,
}

impl TakenPlaces {
    /// A receiver is fed with its places, whatever becomes of the others.
    pub fn keep(&mut self, receiver: &str) {
        for taken in [&mut self.fresh, &mut self.created, &mut self.returned] {
            taken.retain(|progress| progress.receiver() != receiver);
        }
        // It is known from now on.
        let known = self.mapped.get(receiver).into_iter().flatten();
        let known = known.filter(|(feed, _)| feed.durability != Durability::Memory);
        self.known_before.extend(known.map(|(feed, _)| (receiver.to_owned(), feed.topic.name().to_owned())));
        self.known_before.sort();
        self.known_before.dedup();
    }

    /// The data types of a receiver, and its cursors.
    pub fn of(&self, receiver: &str) -> Mapped {
        self.mapped.get(receiver).cloned().unwrap_or_default()
    }
}

impl Delivery {
    /// Takes up the cursors of receivers as their settings map them. Those that are fed keep theirs. From then on nothing that
    /// they need is deleted. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`DeliveryError`]. No place is taken then.
    pub fn take_places<'a>(
        &self,
        receivers: impl Iterator<Item = &'a config::Receiver>,
        feeds: &Feeds,
        data_dir: &DataDir,
    ) -> Result<TakenPlaces, DeliveryError> {
        let known_before = data_dir.known_receivers()?;
        let mut taken = TakenPlaces { known_before, ..TakenPlaces::default() };
        match self.take(&mut taken, receivers, feeds, data_dir) {
            Ok(()) => Ok(taken),
            Err(error) => {
                self.give_back(&taken, data_dir);
                Err(error)
            }
        }
    }

    fn take<'a>(
        &self,
        taken: &mut TakenPlaces,
        receivers: impl Iterator<Item = &'a config::Receiver>,
        feeds: &Feeds,
        data_dir: &DataDir,
    ) -> Result<(), DeliveryError> {
        let mut known: BTreeSet<(String, String)> = taken.known_before.iter().cloned().collect();
        for settings in receivers {
            let fed = self.receiver(&settings.name).map(|feeding| feeding.mapped.clone()).unwrap_or_default();
            let mut mapped = Vec::new();
            for data_type in &settings.types {
                // The config has been checked: every mapped type is configured.
                let Some(feed) = feeds.get(data_type) else { continue };
                let stays = fed.iter().find(|(feed, _)| feed.topic.name() == data_type);
                let progress = match stays {
                    Some((_, progress)) => progress.clone(),
                    None => self.take_place(taken, settings, &feed, &mut known)?,
                };
                if settings.keyvalue {
                    progress.begins_to_keep_values();
                }
                mapped.push((feed, progress));
            }
            taken.mapped.insert(settings.name.clone(), mapped);
        }
        if known.len() > taken.known_before.len() {
            data_dir.know_receivers(&known.into_iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn take_place(
        &self,
        taken: &mut TakenPlaces,
        settings: &config::Receiver,
        feed: &Feed,
        known: &mut BTreeSet<(String, String)>,
    ) -> Result<Arc<Progress>, DeliveryError> {
        let data_type = feed.topic.name();
        if let Some(left) = self.places.left(&settings.name, data_type) {
            self.places.add([left.clone()]);
            taken.returned.push(left.clone());
            return Ok(left);
        }
        let pair = (settings.name.clone(), data_type.to_owned());
        let state = &self.means.state;
        let has_cursors = state.cursors(&settings.name, data_type).map_err(|source| {
            let (receiver, topic) = pair.clone();
            DeliveryError::Cursors { receiver, topic, source: Box::new(source) }
        })?;
        let progress = Progress::take_up(settings, data_type, feed, known.contains(&pair), state)?;
        let progress = Arc::new(progress);
        self.places.add([progress.clone()]);
        taken.fresh.push(progress.clone());
        if feed.durability != Durability::Memory {
            known.insert(pair);
            if has_cursors.is_none() {
                taken.created.push(progress.clone());
            }
        }
        Ok(progress)
    }

    /// Gives places back that nobody was fed with, so that it is as if they had not been taken. What can't be undone is logged, and
    /// then is as if the receiver had been there for a moment. Blocks on the disk.
    pub fn give_back(&self, taken: &TakenPlaces, data_dir: &DataDir) {
        self.places.leave(&taken.returned);
        self.places.forget(&taken.fresh);
        if taken.created.is_empty() {
            return;
        }
        // First, so that nobody is ever known whose cursors are gone.
        if let Err(error) = data_dir.know_receivers(&taken.known_before) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "failed to forget receivers that did not come to be fed");
            return;
        }
        for progress in &taken.created {
            let _writing = progress.writing();
            if let Err(error) = self.means.state.forget_cursors(progress.receiver(), progress.topic()) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    receiver.name = progress.receiver(),
                    log.topic = progress.topic(),
                    error,
                    "failed to forget the cursors of a receiver that did not come to be fed"
                );
            }
        }
    }

    /// Starts to feed a receiver. It comes into its place in the order of names.
    pub fn add(&self, fed: Fed, mapped: Mapped, instances: Vec<Instance>) -> Arc<Feeding> {
        let Fed { settings, receiver } = fed;
        let name = settings.name.clone();
        let prepared = self.controls.replace(&name, |paused| {
            let inherited = Inherited { before: None, instances };
            let prepared = Feeding::prepare((settings, receiver), mapped, paused, inherited, &self.means);
            (prepared.feeding().steered.clone(), prepared)
        });
        let feeding = prepared.start(&self.means);
        let mut fed = self.fed.write().unwrap_or_else(PoisonError::into_inner);
        let place = fed.partition_point(|other| other.settings.name < name);
        fed.insert(place, feeding.clone());
        feeding
    }

    /// Ends a receiver between two batches: a call that is running is waited for as long as a swap would wait, then ended, and its
    /// messages are marked if the receiver comes back. Its cursors stay, until they [leave](Self::leave).
    pub async fn remove(&self, feeding: &Arc<Feeding>) {
        let settings = &feeding.settings;
        let halted = feeding.steered.halt.halt(Patience::ThenAbandon(settings.swap_timeout)).await;
        feeding.end();
        let ending = async {
            drop(halted);
            feeding.workers_ended().await;
        };
        if timeout(settings.deadline.saturating_add(END_GRACE), ending).await.is_err() {
            tracing::error!(
                receiver.name = settings.name,
                "a receiver was removed and its workers have not ended"
            );
            feeding.status.interrupted();
        }
        feeding.backlogs_ended().await;
        self.remember(feeding);
        self.controls.remove(&settings.name);
        let mut fed = self.fed.write().unwrap_or_else(PoisonError::into_inner);
        fed.retain(|other| !Arc::ptr_eq(other, feeding));
    }

    /// Saves, durably, where receivers are that are not mapped to these topics any more. What can't be saved now is saved later,
    /// which is logged. Blocks on the disk.
    pub fn save_places(&self, leaving: &[Arc<Progress>]) {
        for progress in leaving.iter().filter(|progress| !progress.is_volatile()) {
            let writing = progress.writing();
            let (state, keyvalue) = (&self.means.state, self.means.keyvalue.as_ref());
            if let Err(error) = progress.save(&writing, state, keyvalue, Persist::Sync) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    receiver.name = progress.receiver(),
                    log.topic = progress.topic(),
                    error,
                    "failed to save the cursors of a receiver that leaves a data type"
                );
            }
        }
    }

    /// These hold nothing back any more.
    pub fn leave(&self, leaving: &[Arc<Progress>]) {
        self.places.leave(leaving);
    }

    /// Lets instances end that were made and are not needed.
    pub fn discard(&self, receiver: Receiver, instances: Vec<Instance>) {
        self.means.guests.spawn(async move { terminate(instances, &receiver).await });
    }

    /// Gives those dead letters to a receiver again that waited for that in the version before, which had other instances.
    ///
    /// # Errors
    ///
    /// When the state database can't be read. They stay dead letters then.
    pub fn queue_again(&self, before: &Feeding) -> Result<(), super::ControlError> {
        let queued = before.steered.redrives.queued();
        if queued.is_empty() {
            return Ok(());
        }
        let ids = queued.into_iter().map(|id| id..=id).collect();
        self.controls.redrive(&before.settings.name, super::Which::Ids(ids)).map(drop)
    }
}

/// The pairs of a receiver and a data type that the one has and the other has not.
pub fn leaving(before: &Mapped, after: &Mapped) -> Vec<Arc<Progress>> {
    let stays = |progress: &Arc<Progress>| after.iter().any(|(_, stays)| Arc::ptr_eq(stays, progress));
    before.iter().map(|(_, progress)| progress).filter(|progress| !stays(progress)).cloned().collect()
}
