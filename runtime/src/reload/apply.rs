//! What of a reload changes something: receivers are exchanged, and if one of them can't be, exchanged back; others come and go.

use std::sync::Arc;

use super::prepare::{Change, Prepared};
use super::report::{Changed, Report};
use super::types::NewType;
use super::{ReloadError, Reloads, difference};
use crate::config::{self, Config};
use crate::delivery::{Feeding, Progress, TakenPlaces, leaving};
use crate::retention;
use crate::swaps::{Order, Receipt, Version, chain};

/// A receiver that was exchanged.
struct Done {
    before: Arc<Feeding>,
    version: Option<Version>,
    keys: Vec<String>,
    component: Option<String>,
    receipt: Receipt,
}

impl Reloads {
    /// Applies what is ready.
    ///
    /// # Errors
    ///
    /// See [`ReloadError`]: what was changed is changed back.
    pub(super) async fn apply(
        &self,
        mut prepared: Prepared,
        current: &Config,
        config: &Config,
        order: &Order,
    ) -> Result<Report, ReloadError> {
        let types = match self.open_types(config).await {
            Ok(types) => types,
            Err(error) => {
                self.discard(prepared);
                return Err(error);
            }
        };
        let taken = match self.take_places(prepared.settings()).await {
            Ok(taken) => taken,
            Err(error) => {
                self.discard(prepared);
                self.close_types(types).await;
                return Err(error);
            }
        };
        let mut done = Vec::new();
        let exchanged = match self.exchange(&mut prepared, &taken, &mut done).await {
            Ok(()) => self.write_down(&mut prepared).await,
            Err(error) => Err(error),
        };
        if let Err(error) = exchanged {
            self.discard(prepared);
            let error = self.take_back(done, taken, error, order).await;
            match error {
                // A receiver that could not be changed back may read them.
                ReloadError::Torn { .. } => self.begin_types(types).await,
                _ => self.close_types(types).await,
            }
            return Err(error);
        }
        // From here on nothing can fail that could be taken back.
        let mut report = self.report(&done, current, config);
        for (fed, instances) in prepared.added {
            let mapped = taken.of(&fed.settings.name);
            report.added.push(fed.settings.name.clone());
            let feeding = self.parts.delivery.add(fed, mapped, instances);
            self.parts.swaps.appear(&feeding);
        }
        for (receiver, version) in prepared.notes {
            if let Err(error) = self.parts.swaps.note(&receiver, version).await {
                tracing::error!(
                    receiver.name = receiver,
                    error = chain(&error),
                    "failed to note which file a receiver has"
                );
            }
        }
        let mut left = Vec::new();
        for feeding in self.parts.delivery.receivers() {
            let name = &feeding.settings.name;
            if config.receivers.iter().all(|receiver| receiver.name != *name) {
                self.parts.delivery.remove(&feeding).await;
                self.parts.swaps.disappear(&feeding);
                report.removed.push(name.clone());
                left.extend(leaving(&feeding.mapped, &Vec::new()));
            }
        }
        for Done { before, .. } in &done {
            let name = &before.settings.name;
            let Some(now) = self.parts.delivery.receiver(name) else { continue };
            let leaving = leaving(&before.mapped, &now.mapped);
            let types: Vec<_> = leaving.iter().map(|progress| progress.topic().to_owned()).collect();
            self.parts.metrics.forget_mapping(name, &types);
            left.extend(leaving);
            if before.settings.instances != now.settings.instances {
                self.queue_again(before.clone()).await;
            }
        }
        self.retain(left, &types, config).await;
        // Last, so that whoever is mapped to them is there.
        self.begin_types(types).await;
        Ok(report)
    }

    async fn take_places(&self, receivers: Vec<config::Receiver>) -> Result<TakenPlaces, ReloadError> {
        let (delivery, data_dir) = (self.parts.delivery.clone(), self.parts.data_dir.clone());
        let feeds = self.parts.feeds.clone();
        let taking = move || delivery.take_places(receivers.iter(), &feeds, &data_dir);
        Ok(tokio::task::spawn_blocking(taking).await??)
    }

    async fn exchange(
        &self,
        prepared: &mut Prepared,
        taken: &TakenPlaces,
        done: &mut Vec<Done>,
    ) -> Result<(), ReloadError> {
        // What is left when one fails is let go.
        while !prepared.changes.is_empty() {
            let Change { receiver, settings: _, keys, component, version, mut ready } =
                prepared.changes.remove(0);
            let before = ready.old.clone();
            ready.replacement.mapped = taken.of(&receiver);
            let receipt = self.parts.swaps.exchange(ready).await?;
            done.push(Done { before, version, keys, component, receipt });
        }
        Ok(())
    }

    /// Writes down which components those begin with that are new.
    async fn write_down(&self, prepared: &mut Prepared) -> Result<(), ReloadError> {
        let Some(beginning) = prepared.beginning.take() else { return Ok(()) };
        Ok(self.parts.swaps.begin(beginning).await??)
    }

    /// Changes back what was changed, the last first.
    async fn take_back(
        &self,
        done: Vec<Done>,
        mut taken: TakenPlaces,
        error: ReloadError,
        order: &Order,
    ) -> ReloadError {
        let why = format!("the reload was taken back: failed to {}", chain(&error));
        let mut left = Vec::new();
        for Done { before, version, .. } in done.into_iter().rev() {
            let name = before.settings.name.clone();
            let back = self.parts.swaps.renew_back(&before, version, order.clone(), why.clone()).await;
            if let Err(error) = back {
                left.push(format!("receiver {name:?} ({})", chain(&error)));
                taken.keep(&name);
            }
        }
        let (delivery, data_dir) = (self.parts.delivery.clone(), self.parts.data_dir.clone());
        let giving = tokio::task::spawn_blocking(move || delivery.give_back(&taken, &data_dir)).await;
        if let Err(error) = giving {
            tracing::error!(%error, "failed to give back what was taken for a reload");
        }
        if left.is_empty() { error } else { ReloadError::Torn { error: Box::new(error), left } }
    }

    async fn queue_again(&self, before: Arc<Feeding>) {
        let (delivery, name) = (self.parts.delivery.clone(), before.settings.name.clone());
        let queued = tokio::task::spawn_blocking(move || delivery.queue_again(&before)).await;
        let problem = match queued {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            receiver.name = name,
            error = problem,
            "dead letters that were to be given again must be redriven once more"
        );
    }

    /// What receivers have left is kept for a while, as after a start without them, and everything else as the config says.
    async fn retain(&self, left: Vec<Arc<Progress>>, types: &[NewType], config: &Config) {
        let new: Vec<_> = types.iter().map(NewType::topic).collect();
        let (delivery, data_dir) = (self.parts.delivery.clone(), self.parts.data_dir.clone());
        let (state, retained, config) =
            (self.parts.state.clone(), self.parts.retained.clone(), config.clone());
        let retaining = tokio::task::spawn_blocking(move || {
            delivery.save_places(&left);
            let absent = retention::absent(&state, &data_dir, &config)?;
            // Before they hold nothing back any more, so that nothing is deleted between.
            retained.set(&config, &absent);
            new.iter().for_each(|(topic, of)| retained.add(retention::Kept::new(topic.clone(), of, &absent)));
            delivery.leave(&left);
            Ok::<_, retention::AbsenceError>(())
        });
        let problem = match retaining.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            error = problem,
            "failed to see what receivers that left have not finished; it is kept until the server is started again"
        );
    }

    fn report(&self, done: &[Done], current: &Config, config: &Config) -> Report {
        let changed = done.iter().map(|done| Changed {
            receiver: done.before.settings.name.clone(),
            keys: done.keys.clone(),
            component: done.component.clone(),
            receipt: done.receipt.id,
        });
        let (mut keys, mut types) = (Vec::new(), Vec::new());
        if current.log.absent_grace != config.log.absent_grace {
            keys.push("log.absent-grace".to_owned());
        }
        for data_type in &config.types {
            match current.types.iter().find(|before| before.name == data_type.name) {
                Some(before) => {
                    let changed = difference::of_type(before, data_type).into_iter();
                    keys.extend(changed.map(|key| format!("types.{}.{key}", data_type.name)));
                }
                None => types.push(data_type.name.clone()),
            }
        }
        Report {
            types,
            added: Vec::new(),
            removed: Vec::new(),
            changed: changed.collect(),
            keys,
            warnings: config.warnings(),
        }
    }
}
