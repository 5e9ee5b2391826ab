//! Reads a component's file, with a bound, and says what else it is if it is no component. Nothing is parsed here beyond
//! the first bytes: the child process that compiles does that.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::LoadError;

/// The first eight bytes of a component: magic number, version, layer.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// The first eight bytes of a core module.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// What WebAssembly of any kind starts with.
const MAGIC: &[u8] = b"\0asm";
/// What an executable, and an artifact of the compiler, start with.
const ELF: &[u8] = b"\x7fELF";

/// The bytes of a component. Only that they begin as a component does is known.
pub struct ComponentFile {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// The SHA-256 of the bytes, in hex.
    pub digest: String,
}

impl ComponentFile {
    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`LoadError::Read`], [`LoadError::TooLarge`] and [`LoadError::NotAComponent`].
    pub async fn read(path: &Path, limit: u64) -> Result<Self, LoadError> {
        let path = path.to_owned();
        blocking(move || Self::read_now(&path, limit)).await
    }

    fn read_now(path: &Path, limit: u64) -> Result<Self, LoadError> {
        let bytes =
            read_bounded(path, limit).map_err(|source| LoadError::Read { path: path.into(), source })?;
        let Some(bytes) = bytes else {
            return Err(LoadError::TooLarge { path: path.into(), limit });
        };
        Self::of(path, bytes)
    }

    /// What was read of `path`, or is to be called so in errors.
    ///
    /// # Errors
    ///
    /// [`LoadError::NotAComponent`].
    pub fn of(path: &Path, bytes: Vec<u8>) -> Result<Self, LoadError> {
        if let Some((found, advice)) = not_a_component(&bytes) {
            return Err(LoadError::NotAComponent { path: path.into(), found, advice });
        }
        let digest = hex_digest(&bytes);
        Ok(Self { bytes, digest })
    }
}

/// The SHA-256 of `bytes`, in hex.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Runs work that waits for the disk, or takes more than a moment, on a thread that is made for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            // Our own code does not panic; if a library does, that must not be hidden.
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops this future next.
            Err(_) => std::future::pending().await,
        },
    }
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // Before it is opened: opening a pipe waits for somebody who writes.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((u64::try_from(read).unwrap_or(u64::MAX) <= limit).then_some(bytes))
}

/// What these bytes are, and what to do about it, unless they start as a component does.
fn not_a_component(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const BUILD: &str = "build the receiver for `wasm32-wasip2` and name the file that comes out";
    if bytes.starts_with(COMPONENT) {
        None
    } else if bytes.is_empty() {
        Some(("an empty file", BUILD))
    } else if bytes.starts_with(CORE_MODULE) {
        Some((
            "a core module",
            "build it for `wasm32-wasip2`, or make a component of it with `wasm-tools component new`",
        ))
    } else if bytes.starts_with(MAGIC) {
        Some(("WebAssembly of an unknown version", "build it with a current toolchain"))
    } else if bytes.starts_with(ELF) {
        Some(("an executable or a compiled component", BUILD))
    } else if std::str::from_utf8(bytes).is_ok() {
        Some(("text", BUILD))
    } else {
        Some(("data of an unknown kind", BUILD))
    }
}
