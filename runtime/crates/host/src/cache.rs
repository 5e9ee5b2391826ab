//! Compiled components, kept in a folder so that a server starts in milliseconds.
//!
//! A file is named `<digest of the component>-<digest of the engine's settings>.cwasm`. It holds the SHA-256 of the
//! artifact (32 bytes) and then the artifact. One that is missing, cut short or damaged is compiled again. Files appear
//! whole, by renaming, so several servers may share a folder. The oldest go when there are too many.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::{Builder, TempDir};
use tokio::sync::Mutex;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::component_file::{ComponentFile, blocking};
use crate::error::{HostError, LoadError};
use crate::host::HostOptions;
use child::Child;

mod child;

/// How many artifacts are kept: more than a server has receivers, and at 40 MB for a JavaScript or Python component no
/// more than a few GB.
const MAX_ARTIFACTS: usize = 64;

/// The end of an artifact's name.
const EXTENSION: &str = "cwasm";

/// The start of the name of a folder in which a component is compiled.
const WORK_PREFIX: &str = "compile-";

/// When a folder in which a component is compiled was surely left by a server that was killed.
const WORK_ABANDONED: Duration = Duration::from_secs(6 * 3600);

/// The length of a SHA-256 digest in bytes.
const DIGEST_BYTES: usize = 32;

/// The folder of compiled components, and the right to fill it.
pub(crate) struct Cache {
    dir: PathBuf,
    engine: String,
    child: Child,
    /// One component is compiled at a time: compiling takes all the processors that it gets, and much memory.
    compiling: Mutex<()>,
}

impl Cache {
    /// Makes the folder if it is missing, readable by nobody else, and removes what killed servers left in it.
    pub(crate) fn open(options: &HostOptions, engine: &Engine) -> Result<Self, HostError> {
        let dir = options.cache_dir.clone();
        let fail = |source| HostError::CacheFolder { path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(fail)?;
        remove_abandoned(&dir).map_err(fail)?;
        let mut hasher = EngineHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = format!("{:x}", hasher.0.finalize());
        Ok(Self { dir, engine, child: Child::new(options), compiling: Mutex::new(()) })
    }

    /// Gives the component in `file`, which was read from `path`, ready to run.
    pub(crate) async fn component(
        &self,
        engine: &Engine,
        path: &Path,
        file: ComponentFile,
    ) -> Result<Component, LoadError> {
        let place = self.dir.join(format!("{}-{}.{EXTENSION}", file.digest, self.engine));
        let artifact = match read_artifact(&place).await {
            Some(artifact) => artifact,
            None => self.compile(path, file, &place).await?,
        };
        let engine = engine.clone();
        let component = blocking(move || load_compiled(&engine, &artifact)).await;
        component.map_err(|error| LoadError::DoesNotFit { path: path.into(), reason: format!("{error:#}") })
    }

    async fn compile(&self, path: &Path, file: ComponentFile, place: &Path) -> Result<Artifact, LoadError> {
        let _turn = self.compiling.lock().await;
        // Whoever had the turn before may have compiled the same component.
        if let Some(artifact) = read_artifact(place).await {
            return Ok(artifact);
        }
        let dir = self.dir.clone();
        let fail = |source| LoadError::Cache { path: self.dir.clone(), source };
        // A copy, so that what is compiled is what was hashed, even if somebody replaces the file just now.
        let (work, input) = blocking(move || {
            let work = Builder::new().prefix(WORK_PREFIX).tempdir_in(dir)?;
            let input = work.path().join("component.wasm");
            fs::write(&input, &file.bytes)?;
            io::Result::Ok((work, input))
        })
        .await
        .map_err(fail)?;
        let output = work.path().join("artifact");
        self.child.compile(path, &input, &output).await?;
        let (dir, place) = (self.dir.clone(), place.to_owned());
        blocking(move || keep(&work, &output, &dir, &place)).await.map_err(fail)
    }
}

/// The output of the compiler, known to be exactly that.
struct Artifact {
    bytes: Vec<u8>,
}

async fn read_artifact(place: &Path) -> Option<Artifact> {
    let place = place.to_owned();
    blocking(move || {
        let mut bytes = fs::read(&place).ok()?;
        let (digest, rest) = bytes.split_at_checked(DIGEST_BYTES)?;
        if Sha256::digest(rest).as_slice() != digest {
            tracing::warn!(file = %place.display(), "a compiled component is damaged and is compiled again");
            return None;
        }
        // Its age decides whether it is kept. If it can't be set, the file goes sooner, that is all.
        if let Ok(file) = File::open(&place) {
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        bytes.drain(..DIGEST_BYTES);
        Some(Artifact { bytes })
    })
    .await
}

/// Compiled components, as an offline check finds them.
#[derive(Debug, Default)]
pub struct CacheCheck {
    /// How many are whole.
    pub whole: u64,
    /// The files of those that are not.
    pub damaged: Vec<PathBuf>,
}

/// Checks the compiled components in a folder and changes nothing. Blocks on the disk.
///
/// # Errors
///
/// When the folder or a file can't be read.
pub fn check_cache(dir: &Path) -> io::Result<CacheCheck> {
    let mut checked = CacheCheck::default();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(checked),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let bytes = fs::read(&path)?;
        let parts = bytes.split_at_checked(DIGEST_BYTES);
        match parts.filter(|(digest, artifact)| Sha256::digest(artifact).as_slice() == *digest) {
            Some(_) => checked.whole = checked.whole.saturating_add(1),
            None => checked.damaged.push(path),
        }
    }
    checked.damaged.sort();
    Ok(checked)
}

/// Takes what the child wrote into the cache.
fn keep(work: &TempDir, output: &Path, dir: &Path, place: &Path) -> io::Result<Artifact> {
    let bytes = fs::read(output)?;
    let whole = work.path().join("whole");
    let mut file = File::create(&whole)?;
    file.write_all(&Sha256::digest(&bytes))?;
    file.write_all(&bytes)?;
    drop(file);
    fs::rename(whole, place)?;
    remove_oldest(dir)?;
    Ok(Artifact { bytes })
}

/// Makes a component of machine code.
#[expect(unsafe_code, reason = "running machine code from a file is what a compile cache is for")]
fn load_compiled(engine: &Engine, artifact: &Artifact) -> wasmtime::Result<Component> {
    // SAFETY: these bytes must come from `Engine::precompile_component`. An `Artifact` is made in two places. In `keep` it
    // is the output of the compiler process that this server started just now, in a folder that only its user may enter. In
    // `read_artifact` it is what `keep` of this or an earlier server wrote, whole and unchanged, as its digest shows.
    // The bytes are in memory of our own, so nobody can change them between that check and their use. Whether they were
    // made by this version and with these settings is checked by `deserialize` itself.
    unsafe { Component::deserialize(engine, &artifact.bytes) }
}

fn remove_abandoned(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_work = entry.file_name().to_string_lossy().starts_with(WORK_PREFIX);
        if is_work && entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > WORK_ABANDONED) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_oldest(dir: &Path) -> io::Result<()> {
    let mut artifacts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            artifacts.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    artifacts.sort();
    let excess = artifacts.len().saturating_sub(MAX_ARTIFACTS);
    for (_, path) in artifacts.into_iter().take(excess) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A hasher that is the same in every build, unlike the standard library's.
struct EngineHasher(Sha256);

impl Hasher for EngineHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.clone().finalize().iter().take(8).fold(0, |value, byte| (value << 8) | u64::from(*byte))
    }
}
