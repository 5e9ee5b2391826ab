//! What a reload of the config needs of swaps: a receiver goes on with other settings, or with another component because its file
//! is another one, and can be taken back to what it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinError;
use wharf_host::ComponentFile;

use super::carry_out::{Ready, Stage, Task, failed_to};
use super::coming::Coming;
use super::receipt::{Kind, Receipt};
use super::start::{Beginning, StartError};
use super::versions::Version;
use super::{Order, SwapError, Swaps};
use crate::config;
use crate::delivery::{Feeding, ReceiverState};
use crate::frontend::pages::Page;
use crate::telemetry::ReceiverLabel;

/// Receivers that nobody else exchanges as long as this is there.
pub struct Held {
    _places: Vec<OwnedMutexGuard<()>>,
}

/// What is to run of a receiver, by the file of its config.
pub struct Found {
    file: ComponentFile,
    version: Option<Version>,
    /// The digest of what is to run: what was swapped in, until the file is another one.
    runs: String,
}

impl Found {
    /// The digest of what is to run.
    pub fn runs(&self) -> &str {
        &self.runs
    }

    /// Whether the component changes.
    pub fn is_other_than(&self, old: &Feeding) -> bool {
        self.runs != old.receiver.digest()
    }

    /// What is to be written down although nothing changes: that the file is another one, which runs already.
    pub fn to_note(&self) -> Option<Version> {
        let version = self.version.as_ref().filter(|version| version.file != self.file.digest)?;
        Some(Version { file: self.file.digest.clone(), ..version.clone() })
    }

    /// What was written down before.
    pub fn version(&self) -> Option<Version> {
        self.version.clone()
    }
}

impl Swaps {
    /// Waits until nobody exchanges these receivers, and keeps everybody else from it.
    pub async fn hold(&self, receivers: &BTreeSet<String>) -> Held {
        let mut places = Vec::new();
        // In one order, so that nobody waits for another who waits for him.
        for receiver in receivers {
            places.push(self.place(receiver).exchanging.clone().lock_owned().await);
        }
        Held { _places: places }
    }

    /// Looks at the file that the settings of a receiver name.
    ///
    /// # Errors
    ///
    /// When it can't be read, of which a receipt tells, or the state database can't.
    pub async fn look(
        &self,
        old: &Feeding,
        settings: &config::Receiver,
        order: &Order,
    ) -> Result<Found, SwapError> {
        let file = match ComponentFile::read(&settings.component, self.parts.max_component_bytes).await {
            Ok(file) => file,
            Err(error) => {
                let draft = self.draft(old, &Task::new(Kind::Reload, order.clone()));
                return Err(self.refuse(draft, failed_to(&error)).await);
            }
        };
        let (state, name) = (self.parts.state.clone(), settings.name.clone());
        let version = tokio::task::spawn_blocking(move || Version::of(&name, &state)).await??;
        let running = old.receiver.digest();
        let is_known =
            version.as_ref().map_or(running, |version| version.file.as_str()) == file.digest.as_str();
        let runs = if is_known { running.to_owned() } else { file.digest.clone() };
        Ok(Found { file, version, runs })
    }

    /// Makes a receiver ready to go on with these settings, and with what was found. `why`: for the receipt.
    ///
    /// # Errors
    ///
    /// See [`SwapError`]: nothing has changed.
    pub async fn renew(
        &self,
        old: &Arc<Feeding>,
        settings: config::Receiver,
        found: Found,
        order: Order,
        why: String,
    ) -> Result<Ready, SwapError> {
        let place = self.place(&settings.name);
        let _stage = Stage::of(&place, "checking");
        let task = Task {
            reason: Some(why),
            on_probation: found.is_other_than(old),
            file: Some(found.file.digest.clone()),
            settings: Some(settings),
            ..Task::new(Kind::Reload, order)
        };
        let draft = self.draft(old, &task);
        let coming = if found.runs == found.file.digest {
            match self.keep(found.file).await? {
                Ok(coming) => coming,
                Err(reason) => return Err(self.refuse(draft, reason).await),
            }
        } else {
            self.coming(found.runs.clone())
        };
        self.prepare(old, &place, draft, coming, task).await
    }

    /// Exchanges a receiver that is ready.
    ///
    /// # Errors
    ///
    /// See [`SwapError`]: the old version goes on.
    pub async fn exchange(self: &Arc<Self>, ready: Ready) -> Result<Receipt, SwapError> {
        self.switch(ready).await
    }

    /// Lets what is ready go that is not needed after all.
    pub fn discard(&self, ready: Ready) {
        self.parts.delivery.discard(ready.replacement.receiver, ready.replacement.instances);
    }

    /// Takes a receiver back to what it was `before` it was renewed.
    ///
    /// # Errors
    ///
    /// See [`SwapError`]: it stays as it is.
    pub async fn renew_back(
        self: &Arc<Self>,
        before: &Arc<Feeding>,
        version: Option<Version>,
        order: Order,
        why: String,
    ) -> Result<Receipt, SwapError> {
        let name = before.settings.name.as_str();
        let now = self.find(name)?;
        let place = self.place(name);
        let task = Task {
            reason: Some(why),
            settings: Some(before.settings.clone()),
            version,
            // It had all that before.
            ..Task::new(Kind::Reload, Order { allow_new_imports: true, ..order })
        };
        let (draft, coming) = (self.draft(&now, &task), self.coming(before.receiver.digest().to_owned()));
        let mut ready = self.prepare(&now, &place, draft, coming, task).await?;
        ready.replacement.mapped = before.mapped.clone();
        self.switch(ready).await
    }

    /// Writes down which version a receiver has.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub async fn note(&self, receiver: &str, version: Version) -> Result<(), SwapError> {
        let (state, name) = (self.parts.state.clone(), receiver.to_owned());
        let noting = move || state.set_version(&name, &version.encode());
        Ok(tokio::task::spawn_blocking(noting).await??)
    }

    /// Writes down with which components receivers begin.
    ///
    /// # Errors
    ///
    /// When they can't be kept or written down.
    pub async fn begin(&self, beginning: Beginning) -> Result<Result<(), StartError>, JoinError> {
        let (state, receipts, coming) =
            (self.parts.state.clone(), self.receipts.clone(), self.coming.clone());
        tokio::task::spawn_blocking(move || {
            // While it is locked, nobody removes what is kept and not written down yet.
            let coming = Coming::lock(&coming);
            let add = |receipt: &Receipt, version: &Version| receipts.add(receipt, Some(version)).map(drop);
            beginning.write_down(&state, add, &coming).map(drop)
        })
        .await
    }

    /// Lets browsers and numbers see a receiver that was added.
    pub fn appear(&self, feeding: &Feeding) {
        if feeding.receiver.live().is_some() {
            // It begins at 0.
            let label = ReceiverLabel::new(&feeding.settings.name);
            drop(self.parts.metrics.live_browsers.get_or_create(&label));
        }
        self.show(&feeding.receiver, Page::new(feeding.receiver.clone(), &feeding.settings));
    }

    /// Lets browsers and numbers see no more of a receiver that was removed.
    pub fn disappear(&self, feeding: &Feeding) {
        let name = feeding.settings.name.as_str();
        self.parts.pages.remove(name);
        let states = ReceiverState::ALL.map(ReceiverState::as_str);
        self.parts.metrics.forget_receiver(name, states, &feeding.settings.types);
        self.show_numbers();
        // Whoever comes under this name later begins anew.
        if let Some(last) = self.place(name).last().take() {
            last.probation.cancel();
        }
    }
}
