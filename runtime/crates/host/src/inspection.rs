//! What a component is, without a receiver to run it as: for its author, and for whoever is about to write a config.

use std::path::Path;

use serde::Serialize;

use crate::component_file::ComponentFile;
use crate::contract::{Contract, Export, Import};
use crate::error::LoadError;
use crate::host::Host;
use crate::problem::Problem;

/// What a component exports and imports, and what Wharf has against it whatever it is granted.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The SHA-256 of the file, in hex.
    pub digest: String,
    /// The size of the file in bytes.
    pub size: usize,
    /// What its largest memory starts with, in bytes.
    pub initial_memory: u64,
    /// What it exports, by name.
    pub exports: Vec<Export>,
    /// What it imports, by name.
    pub imports: Vec<Import>,
    /// Why it would be refused. Empty if there is a config with which it would not.
    pub problems: Vec<Problem>,
}

pub(crate) async fn inspect(host: &Host, path: &Path) -> Result<Inspection, LoadError> {
    let file = ComponentFile::read(path, host.options().max_component_bytes).await?;
    let (digest, size) = (file.digest.clone(), file.bytes.len());
    let component = host.cache().component(host.engine(), path, file).await?;
    let Contract { exports, imports, initial_memory, problems } = Contract::of(&component);
    Ok(Inspection { digest, size, initial_memory, exports, imports, problems })
}
