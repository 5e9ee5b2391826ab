//! What all instances of a receiver share, those for its pages included: made once when the component is loaded.

use std::sync::Arc;

use crate::files::Folders;
use crate::guest_log::GuestLog;
use crate::http::Outgoing;
use crate::keyvalue::KeyValueAccess;
use crate::live::Live;
use crate::metrics::GuestMetrics;
use crate::settings::Settings;
use crate::usage::Usage;

/// What all instances of a receiver share.
pub(crate) struct Shared {
    pub(crate) log: Arc<GuestLog>,
    pub(crate) settings: Settings,
    pub(crate) metrics: GuestMetrics,
    pub(crate) live: Option<Live>,
    pub(crate) keyvalue: Option<KeyValueAccess>,
    pub(crate) outgoing: Option<Outgoing>,
    pub(crate) folders: Folders,
    pub(crate) usage: Arc<Usage>,
    /// The memory of one instance in bytes.
    pub(crate) memory: u64,
    /// Host objects that one instance may hold.
    pub(crate) resources: usize,
}
