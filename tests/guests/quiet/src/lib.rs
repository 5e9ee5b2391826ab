//! Looks at every message and does nothing with it, so that what is measured is the host and not the guest.

use std::hint::black_box;

use exports::wharf::receiver::handler::Guest;
use wharf::receiver::types::{Batch, Failure};

wit_bindgen::generate!({ path: "../../../wit", world: "wharf:receiver/base", generate_all });

struct Quiet;

impl Guest for Quiet {
    fn handle(batch: Batch) -> Vec<Failure> {
        black_box(batch);
        Vec::new()
    }
}

export!(Quiet);
