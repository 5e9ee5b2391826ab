//! Does one bad thing, again with every message, chosen by its setting `mode`. The modes are functions named alike, one file
//! for each subject; [`handle`](Hostile::handle) and its neighbours are the list of them. Without a mode it is well-behaved.
//!
//! Before it begins it prints `MODE begins`, so that a test can tell what came between that line and the fault.

mod compute;
mod fault;
mod flood;
mod leak;
mod memory;
mod page;
mod request;

use exports::wasi::http::incoming_handler;
use exports::wharf::receiver::{handler, lifecycle};
use wasi::config::store;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wharf::receiver::types::{Batch, Body, Failure};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:hostile;
        world hostile {
            include wharf:receiver/base@0.1.0;
            import wharf:receiver/live@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:http/outgoing-handler@0.2.12;
            export wharf:receiver/lifecycle@0.1.0;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    world: "fixture:hostile/hostile",
    generate_all,
});

struct Hostile;

impl handler::Guest for Hostile {
    fn handle(batch: Batch) -> Vec<Failure> {
        let mode = setting("mode");
        println!("{mode} begins");
        match mode.as_str() {
            "loop" => compute::spin(),
            "sleep" => compute::sleep(),
            "recurse" => compute::recurse(),
            "allocate" => memory::allocate(),
            "trap" => fault::trap(),
            "poison" => batch.messages.iter().for_each(|message| fault::trap_on_poison(&message.body)),
            "panic-huge" => fault::panic_huge(),
            "exit" => fault::exit(),
            "print" => flood::print(),
            "print-errors" => flood::print_errors(),
            "log" => flood::log(),
            "store" => flood::store(),
            "store-again" => flood::store_again(),
            "publish-huge" => flood::publish_huge(),
            "store-huge" => flood::store_huge(),
            "leak-pollables" => leak::pollables(),
            "leak-fields" => leak::fields(),
            "request" => request::send(),
            _ => {}
        }
        Vec::new()
    }
}

impl lifecycle::Guest for Hostile {
    fn init() -> Result<(), String> {
        match setting("mode").as_str() {
            "init-loop" => compute::spin(),
            "hoard" => memory::hoard(),
            _ => {}
        }
        Ok(())
    }

    fn terminate() {
        if setting("mode") == "terminate-loop" {
            compute::spin();
        }
    }
}

impl incoming_handler::Guest for Hostile {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        match setting("mode").as_str() {
            "page-loop" => compute::spin(),
            "page-stall" => page::stall(out),
            "page-endless" => page::endless(out),
            "page-unfinished" => page::unfinished(out),
            _ => {}
        }
    }
}

/// A setting of the receiver, or nothing.
fn setting(key: &str) -> String {
    store::get(key).expect("settings can be read").unwrap_or_default()
}

/// The JSON of a body.
fn text(body: &Body) -> &str {
    match body {
        Body::Json(text) => text,
        Body::Msgpack(_) => "",
    }
}

export!(Hostile);
