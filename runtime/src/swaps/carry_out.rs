//! Carries out a swap or a rollback, step by step. Whatever goes wrong before the exchange is a refusal: the old version never
//! stops.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_host::{ComponentFile, Grant, Import, Receiver, SavedState, Standing};
use wharf_log::{Lane, LaneSet};
use wharf_state::StateError;

use super::coming::Coming;
use super::receipt::{Kind, MissingReport, Outcome, ProbationOutcome, ProbationReport, Receipt, StateReport};
use super::{Last, Order, Place, SwapError, Swaps, versions};
use crate::components;
use crate::config;
use crate::delivery::{Delivery, Exchanged, Feeding, Handover, Replacement, Terms};
use crate::frontend::pages::Page;
use crate::swaps::versions::Version;
use crate::unix_time::unix_milliseconds;

/// The most of a name that somebody asked for that is repeated.
const MAX_QUOTED: usize = 64;

/// What a component is called that was not read from a file of this machine.
const SENT: &str = "the file that was sent";

/// What is to come, and why.
pub(super) struct Task {
    pub kind: Kind,
    pub order: Order,
    /// Why, if nobody ordered it.
    pub reason: Option<String>,
    /// Whether the new version is to prove itself.
    pub on_probation: bool,
    /// The digest of the file of the config, if that is to be remembered.
    pub file: Option<String>,
    /// Other settings, if they change.
    pub settings: Option<config::Receiver>,
    /// What is to be written down as the version, if it is known already.
    pub version: Option<Version>,
}

impl Task {
    /// Another component under the same settings.
    pub fn new(kind: Kind, order: Order) -> Task {
        Task { kind, order, reason: None, on_probation: false, file: None, settings: None, version: None }
    }
}

/// A receiver whose new version is ready to take over.
pub struct Ready {
    /// What it is now.
    pub old: Arc<Feeding>,
    /// What is to come. Its instances are made.
    pub replacement: Replacement,
    place: Arc<Place>,
    draft: Receipt,
    digest: String,
    task: Task,
    _coming: Coming,
}

/// A step failed: nothing has changed.
struct Refusal(String);

impl Swaps {
    /// Puts a component in the place of a receiver's. Whoever calls it lets it come to its end.
    ///
    /// # Errors
    ///
    /// See [`SwapError`]: the old version goes on.
    pub async fn swap(
        self: &Arc<Self>,
        receiver: &str,
        bytes: Vec<u8>,
        order: Order,
    ) -> Result<Receipt, SwapError> {
        let task = Task { on_probation: true, ..Task::new(Kind::Swap, order) };
        self.swap_to(receiver, bytes, task).await
    }

    pub(super) async fn swap_to(
        self: &Arc<Self>,
        receiver: &str,
        bytes: Vec<u8>,
        task: Task,
    ) -> Result<Receipt, SwapError> {
        let old = self.find(receiver)?;
        let place = self.place(receiver);
        let _one_at_a_time = place.exchanging.lock().await;
        let old = self.parts.delivery.receiver(receiver).unwrap_or(old);
        let _stage = Stage::of(&place, "checking");
        let draft = self.draft(&old, &task);
        // The digest of a large component takes tens of milliseconds, in which this thread would serve nobody.
        let reading = move || ComponentFile::of(Path::new(SENT), bytes).map_err(|error| failed_to(&error));
        let coming = match tokio::task::spawn_blocking(reading).await? {
            Ok(file) if file.digest == old.receiver.digest() => {
                if let Some(file) = task.file {
                    let (state, receiver) = (self.parts.state.clone(), receiver.to_owned());
                    let writing = move || Version::set_file(&receiver, file, &state);
                    tokio::task::spawn_blocking(writing).await??;
                }
                return Err(SwapError::Unchanged { receiver: receiver.to_owned(), digest: file.digest });
            }
            Ok(file) => self.keep(file).await?,
            Err(reason) => Err(reason),
        };
        let coming = match coming {
            Ok(coming) => coming,
            Err(reason) => return Err(self.refuse(draft, reason).await),
        };
        let ready = self.prepare(&old, &place, draft, coming, task).await?;
        self.switch(ready).await
    }

    /// Brings back the component before the one that runs.
    ///
    /// # Errors
    ///
    /// See [`SwapError`]: the version goes on that runs.
    pub async fn roll_back(self: &Arc<Self>, receiver: &str, order: Order) -> Result<Receipt, SwapError> {
        self.roll_back_from(receiver, None, Task::new(Kind::Rollback, order)).await
    }

    /// `from`: only if this version runs.
    pub(super) async fn roll_back_from(
        self: &Arc<Self>,
        receiver: &str,
        from: Option<u64>,
        task: Task,
    ) -> Result<Receipt, SwapError> {
        self.find(receiver)?;
        let place = self.place(receiver);
        let _one_at_a_time = place.exchanging.lock().await;
        let old = self.find(receiver)?;
        let none_before = || SwapError::NoneBefore { receiver: receiver.to_owned() };
        if from.is_some_and(|from| from != old.version) {
            return Err(none_before());
        }
        let (state, name) = (self.parts.state.clone(), receiver.to_owned());
        let version = tokio::task::spawn_blocking(move || Version::of(&name, &state)).await??;
        let previous = version.and_then(|version| version.previous).ok_or_else(none_before)?;
        if !self.parts.kept.has(&previous) {
            return Err(none_before());
        }
        let _stage = Stage::of(&place, "checking");
        let draft = self.draft(&old, &task);
        let ready = self.prepare(&old, &place, draft, self.coming(previous), task).await?;
        self.switch(ready).await
    }

    /// Keeps a component that is to run, durably; if it can't, it says why.
    pub(super) async fn keep(&self, file: ComponentFile) -> Result<Result<Coming, String>, SwapError> {
        let (kept, coming) = (self.parts.kept.clone(), self.coming.clone());
        let keeping = move || {
            let coming = Coming::new(&coming, file.digest.clone());
            kept.keep(&file.digest, &file.bytes).map(|_| coming).map_err(|error| failed_to(&error))
        };
        Ok(tokio::task::spawn_blocking(keeping).await?)
    }

    /// A kept component is to run.
    pub(super) fn coming(&self, digest: String) -> Coming {
        Coming::new(&self.coming, digest)
    }

    pub(super) fn find(&self, receiver: &str) -> Result<Arc<Feeding>, SwapError> {
        self.parts.delivery.receiver(receiver).ok_or_else(|| {
            let receivers = self.parts.delivery.receivers();
            let names: Vec<_> = receivers.iter().map(|feeding| feeding.settings.name.as_str()).collect();
            SwapError::Unknown {
                name: receiver.chars().take(MAX_QUOTED).collect(),
                known: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
            }
        })
    }

    /// Makes the version ready that is to come, with the kept component that is coming.
    pub(super) async fn prepare(
        &self,
        old: &Arc<Feeding>,
        place: &Arc<Place>,
        mut draft: Receipt,
        coming: Coming,
        task: Task,
    ) -> Result<Ready, SwapError> {
        let digest = coming.digest.clone();
        draft.new = Some(digest.clone());
        match self.load(old, place, &mut draft, &digest, &task).await {
            Ok(replacement) => {
                let (old, place) = (old.clone(), place.clone());
                Ok(Ready { old, replacement, place, draft, digest, task, _coming: coming })
            }
            Err(Refusal(reason)) => Err(self.refuse(draft, reason).await),
        }
    }

    /// The exchange itself.
    pub(super) async fn switch(self: &Arc<Self>, ready: Ready) -> Result<Receipt, SwapError> {
        let Ready { old, replacement, place, mut draft, digest, task, _coming } = ready;
        let (old, place, digest) = (&old, &place, digest.as_str());
        let before = old.status.recent();
        let (receiver, page) = (replacement.receiver.clone(), page_of(&replacement));
        let fallback = fallback(old, place, task.kind);
        let since_last = place.last().as_ref().map(|last| last.cursors.clone()).unwrap_or_default();
        let terms = Terms {
            patience: old.settings.swap_timeout,
            drop_state: task.order.drop_state,
            fallback: fallback.clone(),
        };
        let _stage = Stage::of(place, "switching");
        // Those of a call that is running now are handled by then or given again.
        let cursors = Arc::new(OnceLock::new());
        let written = Arc::new(OnceLock::new());
        let commit = {
            let (state, receipts) = (self.parts.state.clone(), self.receipts.clone());
            let (draft, old) = (draft.clone(), old.clone());
            let (written, cursors, since_last) = (written.clone(), cursors.clone(), since_last.clone());
            let version = self.version_after(old.as_ref(), digest, &task);
            move |handover: &Handover| {
                let now = Delivery::cursors(&old);
                let mut receipt = draft;
                receipt.at = unix_milliseconds();
                receipt.state = state_report(handover, &old, &since_last, &now);
                let _ = cursors.set(now);
                let version = version(&state)?;
                let _ = written.set((receipts.add(&receipt, Some(&version))?, receipt.at));
                Ok(())
            }
        };
        let exchanged = self.parts.delivery.exchange(old, replacement, terms, commit).await;
        let Exchanged { feeding, handover, snapshots, pauses, windows } = match exchanged {
            Ok(exchanged) => exchanged,
            Err(error) => return Err(self.refuse(draft, failed_to(&error)).await),
        };
        let now = cursors.get().cloned().unwrap_or_default();
        (draft.id, draft.at) = written.get().copied().unwrap_or_default();
        draft.outcome = Outcome::Switched;
        draft.pause_ms = pauses.iter().map(|pause| milliseconds(*pause)).collect();
        draft.state = state_report(&handover, old, &since_last, &now);
        tracing::info!(
            receiver.name = draft.receiver,
            receipt.id = draft.id,
            who = draft.who,
            old = draft.old,
            new = digest,
            "the component of a receiver was exchanged"
        );
        for pause in &pauses {
            self.parts.metrics.swaps.paused(&draft.receiver, pause.as_secs_f64());
        }
        self.show(&receiver, page);
        let probation = self.begin_last(place, old, &feeding, snapshots, now);
        let receipt = self.settle_soon(draft, windows).await;
        if receipt.probation.is_some() {
            self.prove(feeding, before, receipt.id, probation);
        } else {
            probation.cancel();
        }
        self.forget_components();
        Ok(receipt)
    }

    /// Loads the component and makes its instances, beside those that work.
    async fn load(
        &self,
        old: &Arc<Feeding>,
        place: &Place,
        draft: &mut Receipt,
        digest: &str,
        task: &Task,
    ) -> Result<Replacement, Refusal> {
        let _stage = Stage::of(place, "compiling");
        let began = Instant::now();
        let settings = task.settings.as_ref().unwrap_or(&old.settings);
        let options = components::options(settings, &self.parts.kept.path(digest));
        let loaded = self.parts.host.load_beside(options, &old.receiver).await;
        let receiver = loaded.map_err(|error| Refusal(failed_to(&error)))?;
        if receiver.digest() != digest {
            return Err(Refusal("the component that is kept in the data directory is damaged".to_owned()));
        }
        draft.compile_ms = Some(milliseconds(began.elapsed()));
        let (gained, lost) = differences(old.receiver.imports(), receiver.imports());
        draft.imports_gained = gained.iter().map(|import| import.name.clone()).collect();
        draft.imports_lost = lost.iter().map(|import| import.name.clone()).collect();
        let powers: Vec<_> = gained.iter().filter(|import| gives_power(import, settings)).collect();
        // The component before was let in once.
        if !powers.is_empty() && !task.order.allow_new_imports && task.kind != Kind::Rollback {
            let names: Vec<_> = powers.iter().map(|import| import.name.as_str()).collect();
            return Err(Refusal(format!(
                "the new component imports what the old one does not: {}; if it is to have that, say --allow-new-imports",
                names.join(", ")
            )));
        }
        for warning in receiver.warnings() {
            tracing::warn!(receiver.name = receiver.name(), warning, "a receiver's config can be improved");
        }
        let _stage = Stage::of(place, "starting");
        let settings = settings.clone();
        let made = self.parts.delivery.instantiate(&receiver, settings.instances).await;
        let instances = made
            .map_err(|error| Refusal(format!("failed to start the new version: {error}")))?
            .map_err(|fault| Refusal(format!("failed to start the new version: {fault}")))?;
        Ok(Replacement { settings, receiver, instances, mapped: old.mapped.clone() })
    }

    /// What is written down as the receiver's version then.
    fn version_after(
        &self,
        old: &Feeding,
        digest: &str,
        task: &Task,
    ) -> impl FnOnce(&wharf_state::State) -> Result<Version, StateError> + Send + use<> {
        let (receiver, old, digest) =
            (old.settings.name.clone(), old.receiver.digest().to_owned(), digest.to_owned());
        let (file, known) = (task.file.clone(), task.version.clone());
        move |state| {
            if let Some(known) = known {
                return Ok(known);
            }
            let before = Version::of(&receiver, state)?;
            let file = file.or(before.as_ref().map(|before| before.file.clone()));
            let file = file.unwrap_or_else(|| old.clone());
            let (previous, since) = match before {
                // The component stays, so that the one before it stays the one before it.
                Some(before) if old == digest => (before.previous, before.since),
                _ if old == digest => (None, unix_milliseconds()),
                _ => (Some(old), unix_milliseconds()),
            };
            Ok(Version { running: digest, file, previous, since })
        }
    }

    /// Remembers what the next exchange may need, and ends the probation before. Gives what ends the one that begins.
    fn begin_last(
        &self,
        place: &Place,
        old: &Feeding,
        feeding: &Feeding,
        snapshots: Vec<Option<SavedState>>,
        cursors: Vec<(String, wharf_state::Cursors)>,
    ) -> CancellationToken {
        let probation = self.parts.stop.child_token();
        let mut last = place.last();
        let before = last.take();
        if let Some(before) = &before {
            before.probation.cancel();
        }
        // Under other settings it is still the component that a rollback leaves.
        let is_same_component = old.receiver.digest() == feeding.receiver.digest();
        let (snapshots, cursors) = match before {
            Some(before) if is_same_component && before.version == old.version => {
                (before.snapshots, before.cursors)
            }
            _ if is_same_component => (Vec::new(), cursors),
            _ => (snapshots, cursors),
        };
        *last = Some(Last { version: feeding.version, snapshots, cursors, probation: probation.clone() });
        probation
    }

    /// Lets browsers and numbers see the new version.
    pub(super) fn show(&self, receiver: &Receiver, page: Page) {
        self.parts.pages.put(receiver.name(), page);
        self.show_numbers();
    }

    /// Lets numbers be those of the receivers that there are.
    pub(super) fn show_numbers(&self) {
        let receivers = self.parts.delivery.receivers();
        self.parts.metrics.guests.set(receivers.iter().map(|feeding| feeding.receiver.clone()).collect());
    }

    pub(super) fn draft(&self, old: &Feeding, task: &Task) -> Receipt {
        let settings = task.settings.as_ref().unwrap_or(&old.settings);
        let is_proving = task.on_probation && !settings.probation.is_zero();
        Receipt {
            reason: task.reason.clone(),
            probation: is_proving
                .then_some(ProbationReport { outcome: ProbationOutcome::Running, reason: None }),
            ..Receipt::new(&old.settings.name, task.kind, &task.order.who, old.receiver.digest())
        }
    }

    /// Writes down that it was refused.
    pub(super) async fn refuse(&self, draft: Receipt, reason: String) -> SwapError {
        tracing::error!(
            receiver.name = draft.receiver,
            who = draft.who,
            old = draft.old,
            new = draft.new,
            reason,
            "a swap was refused; the old version goes on"
        );
        let mut receipt = Receipt {
            outcome: Outcome::Refused,
            at: unix_milliseconds(),
            reason: Some(reason),
            probation: None,
            ..draft
        };
        let (receipts, written) = (self.receipts.clone(), receipt.clone());
        match tokio::task::spawn_blocking(move || receipts.add(&written, None)).await {
            Ok(Ok(id)) => receipt.id = id,
            // The reason is what matters to who asked.
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn Error, "failed to write down that a swap was refused");
            }
            Err(error) => tracing::error!(%error, "failed to write down that a swap was refused"),
        }
        self.forget_components();
        SwapError::Refused(Box::new(receipt))
    }

    /// Removes the kept components that nobody needs any more.
    pub(super) fn forget_components(&self) {
        let (state, kept, coming) = (self.parts.state.clone(), self.parts.kept.clone(), self.coming.clone());
        self.tasks.spawn_blocking(move || {
            // While it is locked, none begins to come. One that has come is written down before it is not listed any more.
            let coming = Coming::lock(&coming);
            match versions::needed(&state) {
                Ok(mut needed) => {
                    needed.extend(coming.iter().cloned());
                    kept.keep_only(&needed);
                }
                Err(error) => {
                    let error: &dyn Error = &error;
                    tracing::warn!(error, "failed to see which components are still needed");
                }
            }
        });
    }
}

/// What the version before the one that runs knew when it went: what a rollback gives it back if there is nothing newer. By worker,
/// so that it is of no use under another number of them.
fn fallback(old: &Feeding, place: &Place, kind: Kind) -> Vec<Option<SavedState>> {
    let last = place.last();
    let last = last.as_ref().filter(|last| {
        let is_of_same_workers = last.snapshots.len() == old.settings.instances;
        kind == Kind::Rollback && last.version == old.version && is_of_same_workers
    });
    last.map(|last| last.snapshots.clone()).unwrap_or_default()
}

/// What is being done with a receiver, as long as this is there.
pub(super) struct Stage<'a> {
    place: &'a Place,
    before: Option<&'static str>,
}

impl Stage<'_> {
    pub(super) fn of<'a>(place: &'a Place, stage: &'static str) -> Stage<'a> {
        let mut current = place.stage.lock().unwrap_or_else(PoisonError::into_inner);
        Stage { place, before: current.replace(stage) }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        *self.place.stage.lock().unwrap_or_else(PoisonError::into_inner) = self.before;
    }
}

fn page_of(replacement: &Replacement) -> Page {
    Page::new(replacement.receiver.clone(), &replacement.settings)
}

/// The imports that the new component has and the old one had not, and the other way round, whatever their versions.
fn differences<'a>(old: &'a [Import], new: &'a [Import]) -> (Vec<&'a Import>, Vec<&'a Import>) {
    let interfaces =
        |imports: &'a [Import]| -> BTreeSet<&'a str> { imports.iter().map(Import::interface).collect() };
    let (of_old, of_new) = (interfaces(old), interfaces(new));
    let gained = new.iter().filter(|import| !of_old.contains(import.interface()));
    let lost = old.iter().filter(|import| !of_new.contains(import.interface()));
    (gained.collect(), lost.collect())
}

/// Whether an import lets a component do what not every receiver may. Some link without a grant and reach nothing then.
fn gives_power(import: &Import, settings: &config::Receiver) -> bool {
    match import.standing {
        Standing::IdleWithoutGrant { grant: Grant::Http } => !settings.http.is_empty(),
        Standing::IdleWithoutGrant { grant: Grant::Files } => !settings.files.is_empty(),
        standing => standing.grant().is_some(),
    }
}

fn state_report(
    handover: &Handover,
    old: &Feeding,
    since: &[(String, wharf_state::Cursors)],
    now: &[(String, wharf_state::Cursors)],
) -> StateReport {
    let mut missing = Vec::new();
    for worker in &handover.older {
        let lanes = old.lanes_of(*worker);
        for (data_type, cursors) in now {
            let before = since.iter().find(|(of, _)| of == data_type).map(|(_, cursors)| cursors);
            let from = before.and_then(|before| lanes.iter().map(|lane| before.get(lane).next()).min());
            let to = lanes.iter().map(|lane| end_of(cursors.get(lane))).max();
            let (from, to) = (from.unwrap_or(0), to.unwrap_or(0));
            if from < to {
                let lanes = (lanes != LaneSet::ALL).then(|| lanes.iter().map(Lane::index).collect());
                missing.push(MissingReport { r#type: data_type.clone(), from, to, lanes });
            }
        }
    }
    StateReport {
        snapshots: handover.snapshots,
        formats: handover.formats.clone(),
        bytes: handover.bytes,
        dropped: handover.dropped.clone(),
        missing,
    }
}

/// Nothing is finished at this offset or above.
fn end_of(cursor: &wharf_state::Cursor) -> u64 {
    cursor.runs().last().map_or(cursor.next(), |run| run.end)
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// What failed, on one line.
pub(super) fn failed_to(error: &dyn Error) -> String {
    format!("failed to {}", chain(error))
}

/// An error with what led to it, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
