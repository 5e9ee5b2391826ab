//! What of a reload can fail and is done beside what works: components are loaded, instances are made.

use wharf_host::Instance;

use super::{ReloadError, Reloads, difference};
use crate::components;
use crate::config::{self, Config};
use crate::delivery::Fed;
use crate::swaps::start::{self, Beginning};
use crate::swaps::{Order, Ready, Version};

/// What is ready to be applied.
#[derive(Default)]
pub struct Prepared {
    /// Receivers that go on otherwise.
    pub changes: Vec<Change>,
    /// Receivers whose file is another one that runs already.
    pub notes: Vec<(String, Version)>,
    /// Receivers that are new, with their instances.
    pub added: Vec<(Fed, Vec<Instance>)>,
    /// With which components these begin.
    pub beginning: Option<Beginning>,
}

/// A receiver that goes on otherwise.
pub struct Change {
    /// Its name.
    pub receiver: String,
    /// Its settings.
    pub settings: config::Receiver,
    /// The keys that differ.
    pub keys: Vec<String>,
    /// Its component, if that changes.
    pub component: Option<String>,
    /// What is written down of its component before.
    pub version: Option<Version>,
    /// The exchange.
    pub ready: Ready,
}

impl Prepared {
    /// The settings of all receivers that are to be exchanged or added.
    pub fn settings(&self) -> Vec<config::Receiver> {
        let changed = self.changes.iter().map(|change| change.settings.clone());
        changed.chain(self.added.iter().map(|(fed, _)| fed.settings.clone())).collect()
    }
}

impl Reloads {
    /// Makes everything ready that is to come.
    ///
    /// # Errors
    ///
    /// See [`ReloadError`]. Nothing of it is left then.
    pub(super) async fn prepare(
        &self,
        current: &Config,
        config: &Config,
        order: &Order,
    ) -> Result<Prepared, ReloadError> {
        components::check_paths(config).await?;
        let mut prepared = Prepared::default();
        let outcome = match self.prepare_changes(&mut prepared, config, order).await {
            Ok(()) => self.prepare_added(&mut prepared, current, config).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Ok(prepared),
            Err(error) => {
                self.discard(prepared);
                Err(error)
            }
        }
    }

    /// Lets all of it go.
    pub(super) fn discard(&self, prepared: Prepared) {
        prepared.changes.into_iter().for_each(|change| self.parts.swaps.discard(change.ready));
        for (fed, instances) in prepared.added {
            self.parts.delivery.discard(fed.receiver, instances);
        }
    }

    async fn prepare_changes(
        &self,
        prepared: &mut Prepared,
        config: &Config,
        order: &Order,
    ) -> Result<(), ReloadError> {
        let swaps = &self.parts.swaps;
        for settings in &config.receivers {
            let Some(old) = self.parts.delivery.receiver(&settings.name) else { continue };
            let found = swaps.look(&old, settings, order).await?;
            let keys = difference::of_receiver(&old.settings, settings);
            let is_other = found.is_other_than(&old);
            let receiver = settings.name.clone();
            if keys.is_empty() && !is_other {
                prepared.notes.extend(found.to_note().map(|version| (receiver, version)));
                continue;
            }
            let component = is_other.then(|| found.runs().to_owned());
            let mut reasons = keys.clone();
            reasons.extend(is_other.then(|| "its file".to_owned()));
            let why = format!("the config changed: {}", reasons.join(", "));
            let version = found.version();
            let ready = swaps.renew(&old, settings.clone(), found, order.clone(), why).await?;
            let settings = settings.clone();
            prepared.changes.push(Change { receiver, settings, keys, component, version, ready });
        }
        Ok(())
    }

    async fn prepare_added(
        &self,
        prepared: &mut Prepared,
        current: &Config,
        config: &Config,
    ) -> Result<(), ReloadError> {
        let is_new = |settings: &&config::Receiver| self.parts.delivery.receiver(&settings.name).is_none();
        let new: Vec<_> = config.receivers.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let (state, kept) = (&self.parts.state, self.parts.kept.clone());
        let beginning =
            start::look(&new, current.host.max_component, state, kept, start::Occasion::Reload).await?;
        let loaded = components::load(&self.parts.host, &config.file, &new, &beginning.instead).await?;
        prepared.beginning = Some(beginning);
        for fed in loaded {
            for warning in fed.receiver.warnings() {
                tracing::warn!(
                    receiver.name = fed.settings.name,
                    warning,
                    "a receiver's config can be improved"
                );
            }
            let made = self.parts.delivery.instantiate(&fed.receiver, fed.settings.instances).await?;
            let receiver = fed.settings.name.clone();
            let instances = made.map_err(|fault| ReloadError::Start { receiver, fault })?;
            prepared.added.push((fed, instances));
        }
        Ok(())
    }
}
