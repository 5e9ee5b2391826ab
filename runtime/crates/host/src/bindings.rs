//! What `bindgen!` makes of the package `wharf:receiver`. The world that binds everything is called `host`; its exports
//! are looked up one by one, because all but `handler` are optional. The WIT files hold the documentation.

mod generated {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "wharf:receiver/host",
        imports: { default: trappable },
        exports: { default: async },
        additional_derives: [PartialEq, Eq],
    });
}

pub use generated::wharf::receiver::types::{
    Batch, Body, Failure, FailureAction, Message, PresenceChange, Redelivery, SavedState,
};

pub(crate) use generated::exports::wharf::receiver::{handler, handover, lifecycle, presence, timer};
pub(crate) use generated::wharf::receiver::{live, metrics, types};
