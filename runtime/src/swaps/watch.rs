//! Swaps in a component whose configured file has changed, for receivers whose config says so.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use wharf_host::ComponentFile;

use super::carry_out::{Task, failed_to};
use super::receipt::Kind;
use super::versions::Version;
use super::{Order, SwapError, Swaps};
use crate::delivery::Feeding;

/// How often files are looked at. A file that was written is complete when it looks the same twice.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a file looks like from outside: another one, or one that was written to, looks different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl From<Metadata> for Look {
    fn from(file: Metadata) -> Look {
        Look {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed: (file.mtime(), file.mtime_nsec()),
        }
    }
}

/// What is known of a file that is watched.
#[derive(Debug, Default)]
struct Watched {
    /// What it looked like last.
    seen: Option<Look>,
    /// What it looked like when it was last dealt with.
    done: Option<Look>,
}

impl Swaps {
    /// Watches until the server stops.
    pub async fn watch(self: Arc<Self>) {
        let mut files: HashMap<String, Watched> = HashMap::new();
        while timeout(LOOK_EVERY, self.parts.stop.cancelled()).await.is_err() {
            let receivers = self.parts.delivery.receivers();
            let watched = receivers.iter().filter(|feeding| feeding.settings.watch);
            for feeding in watched {
                let look = tokio::fs::metadata(&feeding.settings.component).await.ok().map(Look::from);
                let file = files.entry(feeding.settings.name.clone()).or_default();
                let is_steady = file.seen == look;
                file.seen = look;
                if look.is_some() && is_steady && file.done != look {
                    file.done = look;
                    self.swap_in_file(feeding).await;
                }
            }
        }
    }

    /// A failure is told and leaves things as they are, until the file changes again.
    async fn swap_in_file(self: &Arc<Self>, feeding: &Feeding) {
        let (receiver, path) = (feeding.settings.name.as_str(), &feeding.settings.component);
        let order = Order { who: "watch".to_owned(), allow_new_imports: false, drop_state: false };
        let mut task = Task {
            reason: Some("its file changed".to_owned()),
            on_probation: true,
            ..Task::new(Kind::Swap, order)
        };
        let swapped = match ComponentFile::read(path, self.parts.max_component_bytes).await {
            // It is what runs, or what a swap has superseded.
            Ok(file) if self.is_known(receiver, &file.digest).await => return,
            Ok(file) => {
                task.file = Some(file.digest);
                self.swap_to(receiver, file.bytes, task).await
            }
            Err(error) => Err(self.refuse(self.draft(feeding, &task), failed_to(&error)).await),
        };
        match swapped {
            Ok(_) => {}
            Err(SwapError::Unchanged { digest, .. }) => {
                tracing::info!(
                    receiver.name = receiver,
                    digest,
                    "a file that changed is the component that runs"
                );
            }
            Err(error) => {
                let why = match error {
                    // The log says it already.
                    SwapError::Refused(receipt) => receipt.reason.unwrap_or_default(),
                    error => {
                        let why = failed_to(&error);
                        tracing::error!(
                            receiver.name = receiver,
                            why,
                            "a component that has changed was not swapped in"
                        );
                        why
                    }
                };
                feeding.status.failed(&format_args!("the changed file was not swapped in: {why}"));
            }
        }
    }

    /// Whether the configured file was this one when it was decided which version runs.
    async fn is_known(&self, receiver: &str, digest: &str) -> bool {
        let (state, name) = (self.parts.state.clone(), receiver.to_owned());
        let known = tokio::task::spawn_blocking(move || Version::of(&name, &state)).await;
        matches!(known, Ok(Ok(Some(known))) if known.file == digest)
    }
}
