//! A receiver whose `init` always gives an error.

use exports::wharf::receiver::{handler, lifecycle};
use wharf::receiver::types::{Batch, Failure};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:init-fails;
        world init-fails {
            include wharf:receiver/base@0.1.0;
            export wharf:receiver/lifecycle@0.1.0;
        }
    ",
    world: "fixture:init-fails/init-fails",
    generate_all,
});

struct InitFails;

impl handler::Guest for InitFails {
    fn handle(_batch: Batch) -> Vec<Failure> {
        Vec::new()
    }
}

impl lifecycle::Guest for InitFails {
    fn init() -> Result<(), String> {
        Err("the database is on holiday".into())
    }

    fn terminate() {}
}

export!(InitFails);
