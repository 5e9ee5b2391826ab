//! `wasi:filesystem`: the folders that a receiver was granted, and nothing around them. What guests may do there at a time is
//! held to in `files/link.rs`. Whether a folder should be granted at all is for those to judge who read the config.

use std::path::PathBuf;

use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx};

use crate::error::LoadError;
pub use link::MAX_OPEN_FILES;
pub(crate) use link::link;

mod link;

/// The grant of one folder.
///
/// The folder is opened when the receiver is loaded: another one that is put in its place later is not seen. Nothing bounds
/// the bytes that a receiver writes to a folder but the room that is there, so a folder to write to is best on a volume that
/// the server does not need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderGrant {
    /// The folder on the server's machine.
    pub host: PathBuf,
    /// Where the guest sees it: an absolute path, such as `/out`.
    pub guest: String,
    /// Whether it may be written to.
    pub write: bool,
}

/// The granted folders of a receiver, open. All its instances use the same handles, so that making one opens nothing, and so
/// that no guest can put a link in the place of a folder before it is opened again.
#[derive(Clone)]
pub(crate) struct Folders {
    grants: Vec<FolderGrant>,
    context: WasiFilesystemCtx,
}

impl Folders {
    pub(crate) fn open(receiver: &str, grants: Vec<FolderGrant>) -> Result<Self, LoadError> {
        let mut builder = WasiCtx::builder();
        for grant in &grants {
            let permissions = if grant.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            builder.preopened_dir(&grant.host, &grant.guest, permissions).map_err(|error| {
                LoadError::Folder {
                    name: receiver.to_owned(),
                    host: grant.host.clone(),
                    guest: grant.guest.clone(),
                    source: error.into_boxed_dyn_error(),
                }
            })?;
        }
        Ok(Self { context: builder.build().filesystem().clone(), grants })
    }

    /// The same open folders, if these are their grants.
    pub(crate) fn if_granted(&self, grants: &[FolderGrant]) -> Option<Self> {
        (self.grants == grants).then(|| self.clone())
    }

    /// What the context of an instance needs of them.
    pub(crate) fn context(&self) -> WasiFilesystemCtx {
        self.context.clone()
    }
}
