//! A receiver that publishes messages to the browsers that look at its page, and serves that page itself, so that
//! replacing the component replaces the page. It keeps nothing: the host remembers the last update of each key, the page
//! its recent past.

wit_bindgen::generate!({ path: "../../wit", world: "page", generate_all });

mod page;
mod update;

use std::collections::BTreeMap;

use exports::wasi::http::incoming_handler;
use exports::wharf::receiver::handler;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wharf::receiver::live;

struct Dashboard;

impl handler::Guest for Dashboard {
    fn handle(batch: handler::Batch) -> Vec<handler::Failure> {
        // A batch is the work of milliseconds: of several updates of one key nobody would see but the last.
        let updates = batch.messages.iter().map(|message| update::from_message(&batch.data_type, message));
        let latest: BTreeMap<_, _> = updates.map(|update| (update.key, update.payload)).collect();
        for (key, payload) in &latest {
            live::publish(Some(key), payload);
        }
        Vec::new()
    }
}

impl incoming_handler::Guest for Dashboard {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        page::serve(&request, response_out);
    }
}

export!(Dashboard);
