//! A receiver that imports an interface which no host provides.

use exports::wharf::receiver::handler::Guest;
use wharf::receiver::types::{Batch, Failure};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:odd-import@1.0.0;
        interface teapot {
            brew: func();
        }
        world odd-import {
            include wharf:receiver/base@0.1.0;
            import teapot;
        }
    ",
    world: "fixture:odd-import/odd-import",
    generate_all,
});

struct OddImport;

impl Guest for OddImport {
    fn handle(_batch: Batch) -> Vec<Failure> {
        fixture::odd_import::teapot::brew();
        Vec::new()
    }
}

export!(OddImport);
