//! Keeps every agent's latest values, and rejects what has none. All it does is in `readings`, which the benchmark compiles
//! natively too.

use std::cell::RefCell;

use exports::wharf::receiver::handler::Guest;
use readings::Readings;
use wharf::receiver::types::{Batch, Body, Failure, FailureAction};

mod readings;

wit_bindgen::generate!({ path: "../../../wit", world: "wharf:receiver/base", generate_all });

thread_local! {
    static READINGS: RefCell<Readings> = RefCell::default();
}

struct Meter;

impl Guest for Meter {
    fn handle(batch: Batch) -> Vec<Failure> {
        READINGS.with_borrow_mut(|readings| {
            let mut failures = Vec::new();
            for message in &batch.messages {
                let taken = match &message.body {
                    Body::Json(body) => readings.take(&message.agent, body),
                    Body::Msgpack(_) => Err("expected JSON".to_owned()),
                };
                if let Err(reason) = taken {
                    failures.push(Failure { offset: message.offset, action: FailureAction::Reject, reason });
                }
            }
            failures
        })
    }
}

export!(Meter);
