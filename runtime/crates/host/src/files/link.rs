//! Holds guests to bounds in `wasi:filesystem` where the engine's implementation has none of its own.
//!
//! It clamps what one read returns to 64 KiB, and works on threads that may wait. It does not bound what a guest holds open:
//! each file is one of the process, of which sockets and the log need some. A listing is read as a whole into memory when it
//! is begun. And a file that is a pipe or a device can keep the thread that opens it for ever, past every deadline.

use rustix::fs::Dir;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, DirectoryEntryStream, ErrorCode, Host, HostDescriptor, OpenFlags,
    PathFlags,
};
use wasmtime_wasi::p2::{FsError, FsResult};

use crate::store::State;

/// Files and folders that one instance may have open at a time: programs that sort or merge files open some dozens.
pub const MAX_OPEN_FILES: usize = 64;

/// Listings that one instance may hold at a time: a walk through folders holds one for each level.
const MAX_LISTINGS: usize = 16;

/// The most entries of a listing: more than people keep in a folder, and about 3 MiB with the longest names.
const MAX_ENTRIES: usize = 10_000;

/// The interface as the engine's implementation links it.
const INTERFACE: &str = "wasi:filesystem/types@0.2.12";

type Open = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

/// Puts the bounds before functions that are linked already.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(INTERFACE)?;
    types.func_wrap_async("[method]descriptor.open-at", |mut store, params: Open| {
        Box::new(async move {
            let state = store.data_mut();
            let opened = open(state, params).await;
            answer(state, opened)
        })
    })?;
    types.func_wrap_async("[method]descriptor.read-directory", |mut store, (folder,)| {
        Box::new(async move {
            let state = store.data_mut();
            let listing = list(state, folder).await;
            answer(state, listing)
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn open(state: &mut State, params: Open) -> FsResult<Resource<Descriptor>> {
    let (folder, path_flags, path, open_flags, flags) = params;
    if held::<Descriptor>(&mut state.table) >= MAX_OPEN_FILES {
        return Err(ErrorCode::Quota.into());
    }
    let mut files = state.filesystem();
    let again = Resource::new_borrow(folder.rep());
    // What is not there may be about to be made. Between this look and the opening, only other programs could put a pipe there:
    // guests have no way to make one.
    if let Ok(found) = files.stat_at(again, path_flags, path.clone()).await
        && !matches!(
            found.type_,
            DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink
        )
    {
        return Err(ErrorCode::Unsupported.into());
    }
    files.open_at(folder, path_flags, path, open_flags, flags).await
}

async fn list(state: &mut State, folder: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
    if held::<DirectoryEntryStream>(&mut state.table) >= MAX_LISTINGS {
        return Err(ErrorCode::Quota.into());
    }
    if let Descriptor::Dir(opened) = state.table.get(&folder)? {
        let opened = opened.dir.clone();
        // Stops at the bound, so that a folder of any size costs no more than one within it.
        let count = move || Dir::read_from(&*opened).map(|entries| entries.take(MAX_ENTRIES + 1).count());
        let counted = tokio::task::spawn_blocking(count).await.map_err(FsError::trap)?;
        if counted.is_ok_and(|entries| entries > MAX_ENTRIES) {
            return Err(ErrorCode::Overflow.into());
        }
    }
    state.filesystem().read_directory(folder).await
}

/// How many objects of a kind an instance holds.
fn held<T: 'static>(table: &mut ResourceTable) -> usize {
    table.iter_mut().filter(|object| object.is::<T>()).count()
}

/// What the guest gets, unless the call was one that must end it.
fn answer<T>(state: &mut State, outcome: FsResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(state.filesystem().convert_error_code(error)?),)),
    }
}
