//! Uses everything that a receiver can import or export, one file for each: the examples of `docs/receivers.md`. What each message does
//! here is chosen to show the imports, not to be useful.

mod counting;
mod files;
mod forwarding;
mod handing_over;
mod live;
mod logging;
mod numbers;
mod settings;
mod starting;

use exports::wharf::receiver::{handler, handover, lifecycle, presence, timer};
use wharf::receiver::types::{Batch, Body, Failure, FailureAction, PresenceChange, SavedState};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package example:tour;
        world tour {
            include wharf:receiver/base@0.1.0;
            import wharf:receiver/live@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
            import wasi:http/outgoing-handler@0.2.12;
            export wharf:receiver/lifecycle@0.1.0;
            export wharf:receiver/presence@0.1.0;
            export wharf:receiver/timer@0.1.0;
            export wharf:receiver/handover@0.1.0;
        }
    ",
    world: "example:tour/tour",
    generate_all,
});

struct Tour;

impl handler::Guest for Tour {
    fn handle(batch: Batch) -> Vec<Failure> {
        let mut failures = Vec::new();
        for message in &batch.messages {
            // With the default `encoding = "json"` every body comes as JSON.
            let Body::Json(body) = &message.body else { continue };
            numbers::record(&batch.data_type, body.len());
            live::show(&message.agent, body);
            let effects = counting::count(&message.agent)
                .and_then(|_| files::append(body))
                .and_then(|()| forwarding::forward(body));
            match effects {
                Ok(()) => handing_over::add(body.len()),
                // It comes again after a pause; later messages of this agent wait for it.
                Err(reason) => {
                    let action = FailureAction::Retry(None);
                    failures.push(Failure { offset: message.offset, action, reason });
                }
            }
        }
        failures
    }
}

impl lifecycle::Guest for Tour {
    fn init() -> Result<(), String> {
        let greeting = settings::greeting()?;
        logging::say(&format!("{greeting}, ready"));
        logging::say(&starting::announcement());
        Ok(())
    }

    fn terminate() {
        logging::say(&format!("leaving after {} bytes", handing_over::bytes()));
    }
}

impl presence::Guest for Tour {
    fn agents_changed(changes: Vec<PresenceChange>) {
        for change in changes {
            let what = if change.active { "came" } else { "went" };
            logging::say(&format!("{:?} {what}", change.agent));
        }
    }
}

impl timer::Guest for Tour {
    fn tick() {
        match counting::total() {
            Ok(total) => logging::say(&format!("{total} messages so far")),
            Err(reason) => logging::say(&reason),
        }
    }
}

impl handover::Guest for Tour {
    fn snapshot() -> SavedState {
        handing_over::snapshot()
    }

    fn restore(old: SavedState) -> Result<(), String> {
        handing_over::restore(old)
    }
}

export!(Tour);
