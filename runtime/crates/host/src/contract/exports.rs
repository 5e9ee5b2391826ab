//! What components export: which interfaces the host calls, and whether they are all there and of the right type.

use serde::Serialize;
use wasmtime::Engine;
use wasmtime::component::types::{Component as ComponentType, ComponentInstance, ComponentItem};
use wasmtime::component::{ComponentNamedList, Lift, Lower, Resource};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use super::versions::{OURS, Versions, WASI, split_version};
use super::{printable_name, printable_reason};
use crate::bindings::{Batch, Failure, PresenceChange, SavedState};
use crate::problem::Problem;

/// An export of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Its name with the version.
    pub name: String,
    /// Whether this version of Wharf calls it. What it does not call does no harm.
    pub called: bool,
}

const HANDLER: Interface = Interface("wharf:receiver/handler", OURS);
const LIFECYCLE: Interface = Interface("wharf:receiver/lifecycle", OURS);
const PRESENCE: Interface = Interface("wharf:receiver/presence", OURS);
const TIMER: Interface = Interface("wharf:receiver/timer", OURS);
const HANDOVER: Interface = Interface("wharf:receiver/handover", OURS);
const PAGE: Interface = Interface("wasi:http/incoming-handler", WASI);

/// All that the host calls.
const CALLED: [Interface; 6] = [HANDLER, LIFECYCLE, PRESENCE, TIMER, HANDOVER, PAGE];

/// An interface that the host calls if it is exported.
#[derive(Clone, Copy)]
struct Interface(&'static str, Versions);

impl Interface {
    fn is(self, name: &str) -> bool {
        self.1.match_name(name, self.0)
    }
}

impl Export {
    fn new(name: &str) -> Self {
        Self { name: printable_name(name), called: CALLED.iter().any(|interface| interface.is(name)) }
    }

    /// Whether it is the timer, in any version: all but ours are refused anyway.
    pub(super) fn is_timer(&self) -> bool {
        split_version(&self.name).0 == TIMER.0
    }

    /// Whether a later version of Wharf may call it.
    pub(super) fn is_of_later_version(&self) -> bool {
        !self.called && self.name.starts_with("wharf:receiver/")
    }
}

/// Looks at the exports of a component.
pub(super) struct Exports<'a> {
    pub(super) engine: &'a Engine,
    pub(super) component: &'a ComponentType,
    /// Whether its imports are linked. Without that, types of functions can't be compared.
    pub(super) linked: bool,
    pub(super) problems: Vec<Problem>,
}

/// An exported interface that the host calls.
struct Found {
    name: String,
    instance: ComponentInstance,
}

impl Exports<'_> {
    pub(super) fn list(&self) -> Vec<Export> {
        let mut exports: Vec<Export> =
            self.component.exports(self.engine).map(|(name, _)| Export::new(name)).collect();
        exports.sort_by(|one, other| one.name.cmp(&other.name));
        exports
    }

    /// Gives all that is wrong with them.
    pub(super) fn check(mut self) -> Vec<Problem> {
        if let Some(handler) = self.find(HANDLER) {
            self.function::<(&Batch,), (Vec<Failure>,)>(&handler, "handle");
        } else if self.problems.is_empty() {
            let exports = self.list().into_iter().map(|export| format!("`{}`", export.name)).collect();
            self.problems.push(Problem::NoHandler { exports });
        }
        if let Some(lifecycle) = self.find(LIFECYCLE) {
            self.function::<(), (Result<(), String>,)>(&lifecycle, "init");
            self.function::<(), ()>(&lifecycle, "terminate");
        }
        if let Some(presence) = self.find(PRESENCE) {
            self.function::<(&[PresenceChange],), ()>(&presence, "agents-changed");
        }
        if let Some(timer) = self.find(TIMER) {
            self.function::<(), ()>(&timer, "tick");
        }
        if let Some(handover) = self.find(HANDOVER) {
            self.function::<(), (SavedState,)>(&handover, "snapshot");
            self.function::<(&SavedState,), (Result<(), String>,)>(&handover, "restore");
        }
        if let Some(page) = self.find(PAGE) {
            self.function::<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>), ()>(
                &page, "handle",
            );
        }
        self.problems
    }

    /// The exported interface of that name. A problem if there is one that can't be called.
    fn find(&mut self, interface: Interface) -> Option<Found> {
        let Interface(base, versions) = interface;
        let mut other = None;
        for (name, item) in self.component.exports(self.engine) {
            if interface.is(name) {
                if let ComponentItem::ComponentInstance(instance) = item.ty {
                    return Some(Found { name: name.to_owned(), instance });
                }
                self.incomplete(name, "is not an interface");
                return None;
            }
            if split_version(name).0 == base {
                other = Some(printable_name(name));
            }
        }
        let found = other?;
        self.problems.push(Problem::ExportVersion { found, expected: versions.expected() });
        None
    }

    fn function<Params, Return>(&mut self, interface: &Found, function: &str)
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        let Some(item) = interface.instance.get_export(self.engine, function) else {
            return self.incomplete(&interface.name, &format!("has no function `{function}`"));
        };
        let ComponentItem::ComponentFunc(found) = item.ty else {
            return self.incomplete(&interface.name, &format!("has `{function}`, but not as a function"));
        };
        if self.linked
            && let Err(error) = found.typecheck::<Params, Return>(&self.component.instance_type())
        {
            let reason = printable_reason(&error);
            self.incomplete(&interface.name, &format!("has `{function}` with another type: {reason}"));
        }
    }

    fn incomplete(&mut self, interface: &str, problem: &str) {
        self.problems.push(Problem::ExportIncomplete {
            interface: printable_name(interface),
            problem: problem.into(),
        });
    }
}
