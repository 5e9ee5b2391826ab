//! Checks what a component exports and imports against the receiver contract and against what the receiver was granted.
//! What is checked here is why a component is refused with a reason; that it can't do more follows from the linker, which
//! holds nothing else.

use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::types;
use crate::fault::{MAX_MESSAGE, printable};
use crate::problem::Problem;
use crate::receiver::ReceiverOptions;
use crate::store::State;
use crate::{http, keyvalue, live, logging, metrics, settings, wasi};
pub use exports::Export;
use exports::Exports;
pub use imports::{Grant, Import, Standing};

mod exports;
mod imports;
mod versions;

/// The size of a page of WebAssembly memory in bytes.
const WASM_PAGE: u64 = 64 * 1024;

/// How much of a name is shown, in bytes: several times what the name of an interface has.
const MAX_NAME: usize = 256;

/// What a component is made for, whoever runs it with whatever grants.
pub(crate) struct Contract {
    pub(crate) exports: Vec<Export>,
    pub(crate) imports: Vec<Import>,
    /// What its largest memory starts with, in bytes.
    pub(crate) initial_memory: u64,
    /// Why no receiver can have it.
    pub(crate) problems: Vec<Problem>,
}

/// What a component that was granted all that it needs is linked with.
pub(crate) struct Admission {
    pub(crate) linker: Linker<State>,
    pub(crate) imports: Vec<Import>,
    /// What is odd about it, but no reason to refuse it.
    pub(crate) warnings: Vec<String>,
}

impl Contract {
    /// Reads it off the component's type.
    pub(crate) fn of(component: &Component) -> Self {
        let engine = component.engine();
        let unlinked = component.component_type();
        let mut problems = Vec::new();
        let mut imports: Vec<Import> = unlinked.imports(engine).map(|(name, _)| Import::new(name)).collect();
        imports.sort_by(|one, other| one.name.cmp(&other.name));
        let mut linked = None;
        let refused = select(&imports, |standing| standing.is_refused());
        if refused.is_empty() {
            let linker = linker(engine, |_| true);
            match linker.and_then(|linker| linker.substituted_component_type(component)) {
                Ok(component) => linked = Some(component),
                Err(error) => problems.push(Problem::link(&error)),
            }
        } else {
            problems.push(Problem::UnknownImports { imports: refused });
        }
        let looked_at = Exports {
            engine,
            component: linked.as_ref().unwrap_or(&unlinked),
            linked: linked.is_some(),
            problems: Vec::new(),
        };
        let exports = looked_at.list();
        problems.extend(looked_at.check());
        let pages = component.resources_required().and_then(|needed| needed.max_initial_memory_size);
        Self { exports, imports, initial_memory: pages.unwrap_or(0).saturating_mul(WASM_PAGE), problems }
    }

    /// Compares it with the grants and settings of a receiver. Gives all that is wrong otherwise.
    pub(crate) fn admit(
        mut self,
        component: &Component,
        options: &ReceiverOptions,
    ) -> Result<Admission, Vec<Problem>> {
        if self.initial_memory > options.memory {
            let (needed, limit) = (self.initial_memory, options.memory);
            self.problems.push(Problem::MemoryTooSmall { needed, limit });
        }
        self.problems.extend(self.not_granted(options));
        if options.ticks && !self.exports_timer() {
            self.problems.push(Problem::NoTimer { receiver: options.name.clone() });
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let linker = linker(component.engine(), |grant| grant.is_in(&options.grants));
        let linker = linker.map_err(|error| vec![Problem::link(&error)])?;
        Ok(Admission { linker, warnings: self.warnings(options), imports: self.imports })
    }

    fn not_granted(&self, options: &ReceiverOptions) -> Option<Problem> {
        let missing = |standing| match standing {
            Standing::NeedsGrant { grant } => !grant.is_in(&options.grants),
            _ => false,
        };
        let imports = select(&self.imports, missing);
        let is_missing = |grant: &Grant| imports.iter().any(|import| import.standing.grant() == Some(*grant));
        let grants: Vec<Grant> = Grant::ALL.into_iter().filter(is_missing).collect();
        let receiver = options.name.clone();
        (!imports.is_empty()).then_some(Problem::NotGranted { receiver, imports, grants })
    }

    fn warnings(&self, options: &ReceiverOptions) -> Vec<String> {
        let of_no_use = |grant: &Grant| {
            grant.is_in(&options.grants)
                && !self.imports.iter().any(|import| import.standing.grant() == Some(*grant))
        };
        let mut warnings: Vec<String> = Grant::ALL
            .into_iter()
            .filter(of_no_use)
            .map(|grant| {
                format!("it has the grant `{}`, but does not import `{}`", grant.key(), grant.import())
            })
            .collect();
        if self.exports_timer() && !options.ticks {
            warnings.push(
                "it exports `wharf:receiver/timer`, which is never called without `tick` in its config"
                    .into(),
            );
        }
        let later = self.exports.iter().filter(|export| export.is_of_later_version());
        warnings.extend(
            later.map(|export| {
                format!("it exports `{}`, which this version of Wharf never calls", export.name)
            }),
        );
        warnings
    }

    fn exports_timer(&self) -> bool {
        self.exports.iter().any(Export::is_timer)
    }
}

impl Problem {
    /// Makes a problem of what the engine says about an import.
    pub(crate) fn link(error: &wasmtime::Error) -> Self {
        Self::Link { reason: printable_reason(error) }
    }
}

fn select(imports: &[Import], matches: impl Fn(Standing) -> bool) -> Vec<Import> {
    imports.iter().filter(|import| matches(import.standing)).cloned().collect()
}

fn linker(engine: &Engine, granted: impl Fn(Grant) -> bool) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    http::link(&mut linker)?;
    types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    logging::link(&mut linker)?;
    settings::link(&mut linker)?;
    metrics::link(&mut linker)?;
    if granted(Grant::Live) {
        live::link(&mut linker)?;
    }
    if granted(Grant::KeyValue) {
        keyvalue::link(&mut linker)?;
    }
    Ok(linker)
}

impl types::Host for State {}

/// A name that a component chose.
fn printable_name(name: &str) -> String {
    printable(name, MAX_NAME, false)
}

/// What the engine says, which quotes the component.
fn printable_reason(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), MAX_MESSAGE, false)
}
