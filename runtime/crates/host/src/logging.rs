//! `wasi:logging`: lines with a level, into the receiver's log under the same caps as what it prints.

use tracing::Level;
use wasmtime::component::{HasSelf, Linker};

use crate::store::State;
use generated::wasi::logging::logging::{self, Host};

mod generated {
    wasmtime::component::bindgen!({
        inline: "package wharf:logging; world imports { import wasi:logging/logging@0.1.0-draft; }",
        path: "../../../wit",
        imports: { default: trappable },
    });
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    logging::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            logging::Level::Trace => Level::TRACE,
            logging::Level::Debug => Level::DEBUG,
            logging::Level::Info => Level::INFO,
            logging::Level::Warn => Level::WARN,
            // Tracing knows nothing worse.
            logging::Level::Error | logging::Level::Critical => Level::ERROR,
        };
        self.shared.log.message(level, &context, &message);
        if level == Level::ERROR {
            self.stderr.keep(&message);
        }
        Ok(())
    }
}
