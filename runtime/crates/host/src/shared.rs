//! What all instances of a receiver share, those for its pages included: made once when the component is loaded. Part of it
//! belongs to the receiver whatever its component is, and is handed from one version of it to the next.

use std::sync::Arc;

use crate::error::LoadError;
use crate::files::Folders;
use crate::grants::Grants;
use crate::guest_log::GuestLog;
use crate::host::Host;
use crate::http::Outgoing;
use crate::keyvalue::KeyValueAccess;
use crate::live::Live;
use crate::metrics::GuestMetrics;
use crate::receiver::ReceiverOptions;
use crate::settings::Settings;
use crate::usage::Usage;

/// What all instances of a receiver share.
pub(crate) struct Shared {
    pub(crate) log: GuestLog,
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

impl Shared {
    /// Makes what a receiver needs. What belongs to the receiver is what `running` has, if it runs, each under the limits of
    /// `options`; the rest is new.
    pub(crate) fn new(
        host: &Host,
        options: &ReceiverOptions,
        running: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let (name, rate, max_series) = (&options.name, options.log_lines_per_second, options.metric_series);
        let Grants { live, keyvalue, http, files } = options.grants.clone();
        let database = host.options().keyvalue.as_ref();
        let folders = running.and_then(|running| running.folders.if_granted(&files));
        Ok(Self {
            folders: folders.map_or_else(|| Folders::open(name, files), Ok)?,
            log: match running {
                Some(running) => running.log.with_rate(rate),
                None => GuestLog::new(name.clone(), rate),
            },
            metrics: match running {
                Some(running) => running.metrics.with_max_series(max_series),
                None => GuestMetrics::new(max_series),
            },
            live: live.map(|options| match running.and_then(|running| running.live.as_ref()) {
                Some(live) => live.with_options(options),
                None => Live::new(options),
            }),
            keyvalue: keyvalue.map(|grant| match running.and_then(|running| running.keyvalue.as_ref()) {
                Some(keyvalue) => keyvalue.with_grant(grant, database),
                None => KeyValueAccess::new(name, grant, database),
            }),
            outgoing: http.map(|grant| match running.and_then(|running| running.outgoing.as_ref()) {
                Some(outgoing) => outgoing.with_grant(grant),
                None => Outgoing::new(grant),
            }),
            settings: Settings::new(options.settings.clone()),
            usage: running.map(|running| running.usage.clone()).unwrap_or_default(),
            memory: options.memory,
            resources: options.resources,
        })
    }
}
