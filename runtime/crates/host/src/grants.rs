//! What a receiver was granted. Without its grant an import does not link, or reaches nothing.

use crate::files::FolderGrant;
use crate::http::HttpGrant;
use crate::keyvalue::KeyValueGrant;
use crate::live::LiveOptions;

/// The grants of one receiver. The default is none.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// `wharf:receiver/live`: to publish to open pages.
    pub live: Option<LiveOptions>,
    /// `wasi:keyvalue`: a durable store of its own.
    pub keyvalue: Option<KeyValueGrant>,
    /// `wasi:http/outgoing-handler`: requests to some origins.
    pub http: Option<HttpGrant>,
    /// `wasi:filesystem`: folders of the server's machine.
    pub files: Vec<FolderGrant>,
}
