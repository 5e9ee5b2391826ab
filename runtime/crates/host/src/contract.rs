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
use crate::live;
use crate::receiver::ReceiverOptions;
use crate::store::State;
use crate::{http, wasi};
use crate::{keyvalue, logging, metrics, settings};

/// The name of the import that needs a grant.
const LIVE: &str = "wharf:receiver/live";

/// The grant as it stands in the config.
const LIVE_GRANT: &str = "live = true";

/// The size of a page of WebAssembly memory in bytes.
const WASM_PAGE: u64 = 64 * 1024;

/// Interfaces of one package that the linker holds, and the versions of them that link.
struct Provided {
    package: &'static str,
    interfaces: &'static [&'static str],
    versions: Versions,
}

/// Versions that are compatible with each other: `0.2` stands for all of `0.2.x`.
#[derive(Clone, Copy)]
struct Versions(&'static str);

const OURS: Versions = Versions("0.1");
const WASI: Versions = Versions("0.2");

/// All that a component can import, but for what needs a grant.
const PROVIDED: &[Provided] = &[
    Provided { package: "wharf:receiver", interfaces: &["types"], versions: OURS },
    Provided {
        package: "wasi:cli",
        interfaces: &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        versions: WASI,
    },
    Provided { package: "wasi:clocks", interfaces: &["monotonic-clock", "wall-clock"], versions: WASI },
    Provided { package: "wasi:filesystem", interfaces: &["preopens", "types"], versions: WASI },
    Provided { package: "wasi:http", interfaces: &["outgoing-handler", "types"], versions: WASI },
    Provided { package: "wasi:io", interfaces: &["error", "poll", "streams"], versions: WASI },
    Provided { package: "wasi:random", interfaces: &["insecure", "insecure-seed", "random"], versions: WASI },
    Provided {
        package: "wasi:sockets",
        interfaces: &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
        versions: WASI,
    },
];

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
        let imports_live = self.imports(engine)?;
        let link_error = |error: wasmtime::Error| LoadError::Link {
            path: self.path().into(),
            reason: format!("{error:#}"),
        };
        let linker = linker(engine, self.options.grants.live.is_some()).map_err(link_error)?;
        let component = linker.substituted_component_type(self.component).map_err(link_error)?;
        let mut warnings = Exports { check: self, engine, component: &component }.run()?;
        if self.options.grants.live.is_some() && !imports_live {
            warnings.push(format!("it has the grant `{LIVE_GRANT}`, but does not import `{LIVE}`"));
        }
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

    /// Whether `live` is among the imports, if all of them can be had.
    fn imports(&self, engine: &Engine) -> Result<bool, LoadError> {
        let component = self.component.component_type();
        let mut unknown = Vec::new();
        let mut live = None;
        for (import, _) in component.imports(engine) {
            if OURS.match_name(import, LIVE) {
                live = Some(import.to_owned());
            } else if !PROVIDED.iter().any(|provided| provided.contains(import)) {
                unknown.push(import.to_owned());
            }
        }
        match (unknown.is_empty(), live) {
            (false, _) => Err(LoadError::UnknownImports { path: self.path().into(), imports: unknown }),
            (true, Some(import)) if self.options.grants.live.is_none() => Err(LoadError::NotGranted {
                path: self.path().into(),
                name: self.options.name.clone(),
                import,
                grant: LIVE_GRANT,
            }),
            (true, live) => Ok(live.is_some()),
        }
    }
}

fn linker(engine: &Engine, live: bool) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    http::link(&mut linker)?;
    types::add_to_linker::<_, wasmtime::component::HasSelf<State>>(&mut linker, |state| state)?;
    logging::link(&mut linker)?;
    settings::link(&mut linker)?;
    metrics::link(&mut linker)?;
    if live {
        live::link(&mut linker)?;
    }
    keyvalue::link(&mut linker)?;
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

impl Provided {
    fn contains(&self, import: &str) -> bool {
        let (name, _) = split_version(import);
        name.split_once('/').is_some_and(|(package, interface)| {
            package == self.package
                && self.interfaces.contains(&interface)
                && self.versions.match_name(import, name)
        })
    }
}

impl Versions {
    /// Whether `name` is `interface` in one of these versions.
    fn match_name(self, name: &str, interface: &str) -> bool {
        let (base, version) = split_version(name);
        let patch = version.strip_prefix(self.0).and_then(|rest| rest.strip_prefix('.'));
        // A draft (`0.2.0-rc.1`) is compatible with nothing but itself.
        base == interface
            && patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
    }

    fn expected(self) -> &'static str {
        self.0
    }
}

/// `wasi:cli/exit@0.2.6` is `wasi:cli/exit` and `0.2.6`.
fn split_version(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}
