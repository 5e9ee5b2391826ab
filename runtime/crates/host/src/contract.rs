//! Checks what a component exports and imports against the receiver contract and against what the receiver was granted.
//! What is checked here is why a component is refused with a reason; that it can't do more follows from the linker, which
//! holds nothing else.

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::types::{Component as ComponentType, ComponentInstance, ComponentItem};
use wasmtime::component::{Component, ComponentNamedList, Lift, Linker, Lower, Resource};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use crate::bindings::{Batch, Failure, PresenceChange, types};
use crate::error::LoadError;
use crate::grants::Grants;
use crate::live;
use crate::receiver::ReceiverOptions;
use crate::store::State;
use crate::{http, wasi};
use crate::{keyvalue, logging, metrics, settings};
use imports::{Grant, Lookup, Needs, look_up};
use versions::{OURS, Versions, WASI, split_version};

mod imports;
mod versions;

/// The size of a page of WebAssembly memory in bytes.
const WASM_PAGE: u64 = 64 * 1024;

/// What a component that may be loaded can do.
pub(crate) struct Contract {
    pub(crate) linker: Linker<State>,
    /// What is odd about it, but no reason to refuse it.
    pub(crate) warnings: Vec<String>,
}

/// What is to be checked.
pub(crate) struct Check<'a> {
    pub(crate) options: &'a ReceiverOptions,
    pub(crate) component: &'a Component,
}

impl Check<'_> {
    fn path(&self) -> &Path {
        &self.options.component
    }

    pub(crate) fn run(&self) -> Result<Contract, LoadError> {
        self.memory()?;
        let engine = self.component.engine();
        let imported = self.imports(engine)?;
        let link_error = |error: wasmtime::Error| LoadError::Link {
            path: self.path().into(),
            reason: format!("{error:#}"),
        };
        let linker = linker(engine, &self.options.grants).map_err(link_error)?;
        let component = linker.substituted_component_type(self.component).map_err(link_error)?;
        let mut warnings = Exports { check: self, engine, component: &component }.run()?;
        let idle =
            Grant::ALL.iter().filter(|grant| grant.is_in(&self.options.grants) && !imported.contains(grant));
        warnings.extend(idle.map(|grant| {
            format!("it has the grant `{}`, but imports nothing that needs it", grant.in_config())
        }));
        Ok(Contract { linker, warnings })
    }

    fn memory(&self) -> Result<(), LoadError> {
        let pages = self.component.resources_required().and_then(|needed| needed.max_initial_memory_size);
        let needed = pages.unwrap_or_default().saturating_mul(WASM_PAGE);
        if needed <= self.options.memory {
            return Ok(());
        }
        Err(LoadError::MemoryTooSmall { path: self.path().into(), needed, limit: self.options.memory })
    }

    /// The grants that the imports need, if all of them can be had.
    fn imports(&self, engine: &Engine) -> Result<Vec<Grant>, LoadError> {
        let mut unknown = Vec::new();
        let mut grants = Vec::new();
        let mut missing = Missing::default();
        for (import, _) in self.component.component_type().imports(engine) {
            match look_up(import) {
                Lookup::Provided(Needs::GrantToLink(grant)) if !grant.is_in(&self.options.grants) => {
                    missing.imports.push(import.to_owned());
                    missing.grants.push(grant.in_config());
                }
                Lookup::Provided(needs) => grants.extend(needs.grant()),
                Lookup::OtherVersion { .. } | Lookup::Unknown => unknown.push(import.to_owned()),
            }
        }
        let path = self.path().into();
        if !unknown.is_empty() {
            return Err(LoadError::UnknownImports { path, imports: unknown });
        }
        if !missing.imports.is_empty() {
            missing.grants.dedup();
            let Missing { imports, grants } = missing;
            return Err(LoadError::NotGranted { path, name: self.options.name.clone(), imports, grants });
        }
        Ok(grants)
    }
}

/// Imports that lack their grants, and these grants as they would stand in the config.
#[derive(Default)]
struct Missing {
    imports: Vec<String>,
    grants: Vec<&'static str>,
}

fn linker(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    http::link(&mut linker)?;
    types::add_to_linker::<_, wasmtime::component::HasSelf<State>>(&mut linker, |state| state)?;
    logging::link(&mut linker)?;
    settings::link(&mut linker)?;
    metrics::link(&mut linker)?;
    if grants.live.is_some() {
        live::link(&mut linker)?;
    }
    if grants.keyvalue.is_some() {
        keyvalue::link(&mut linker)?;
    }
    Ok(linker)
}

impl types::Host for State {}

/// The exports of a component whose imports are linked.
struct Exports<'a> {
    check: &'a Check<'a>,
    engine: &'a Engine,
    component: &'a ComponentType,
}

impl Exports<'_> {
    fn run(&self) -> Result<Vec<String>, LoadError> {
        let Some(handler) = self.find("wharf:receiver/handler", OURS)? else {
            let exports = self.component.exports(self.engine).map(|(name, _)| name.to_owned()).collect();
            return Err(LoadError::NoHandler { path: self.check.path().into(), exports });
        };
        self.function::<(&Batch,), (Vec<Failure>,)>(&handler, "handle")?;
        if let Some(lifecycle) = self.find("wharf:receiver/lifecycle", OURS)? {
            self.function::<(), (Result<(), String>,)>(&lifecycle, "init")?;
            self.function::<(), ()>(&lifecycle, "terminate")?;
        }
        if let Some(presence) = self.find("wharf:receiver/presence", OURS)? {
            self.function::<(&[PresenceChange],), ()>(&presence, "agents-changed")?;
        }
        if let Some(timer) = self.find("wharf:receiver/timer", OURS)? {
            self.function::<(), ()>(&timer, "tick")?;
        }
        if let Some(page) = self.find("wasi:http/incoming-handler", WASI)? {
            self.function::<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>), ()>(
                &page, "handle",
            )?;
        }
        let is_later = |name: &str| {
            name.starts_with("wharf:receiver/")
                && !["handler", "lifecycle", "presence", "timer"]
                    .iter()
                    .any(|known| OURS.match_name(name, &format!("wharf:receiver/{known}")))
        };
        let names = self.component.exports(self.engine).map(|(name, _)| name);
        Ok(names
            .filter(|name| is_later(name))
            .map(|name| format!("it exports `{name}`, which this version of Wharf never calls"))
            .collect())
    }

    /// The exported interface of that name. An error if there is only one of another version.
    fn find(&self, interface: &'static str, versions: Versions) -> Result<Option<Export>, LoadError> {
        let mut other = None;
        for (name, item) in self.component.exports(self.engine) {
            if versions.match_name(name, interface) {
                let ComponentItem::ComponentInstance(instance) = item.ty else {
                    return Err(self.incomplete(name, "is not an interface"));
                };
                return Ok(Some(Export { name: name.into(), instance }));
            }
            if split_version(name).0 == interface {
                other = Some(name.to_owned());
            }
        }
        match other {
            Some(found) => Err(LoadError::ExportVersion {
                path: self.check.path().into(),
                found,
                expected: versions.expected(),
            }),
            None => Ok(None),
        }
    }

    fn function<Params, Return>(&self, export: &Export, function: &str) -> Result<(), LoadError>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        let Some(item) = export.instance.get_export(self.engine, function) else {
            return Err(self.incomplete(&export.name, &format!("has no function `{function}`")));
        };
        let ComponentItem::ComponentFunc(found) = item.ty else {
            return Err(self.incomplete(&export.name, &format!("has `{function}`, but not as a function")));
        };
        found.typecheck::<Params, Return>(&self.component.instance_type()).map_err(|error| {
            self.incomplete(&export.name, &format!("has `{function}` with another type: {error:#}"))
        })
    }

    fn incomplete(&self, interface: &str, problem: &str) -> LoadError {
        LoadError::ExportIncomplete {
            path: self.check.path().into(),
            interface: interface.into(),
            problem: problem.into(),
        }
    }
}

struct Export {
    name: String,
    instance: ComponentInstance,
}
