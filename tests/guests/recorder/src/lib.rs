//! Prints every message that it gets as one line of JSON, and `init` and `terminate` when it is told so. What it printed
//! stands in the server's log, which survives whatever happens to the server: tests compare it with what was acknowledged.

use std::io::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use exports::wharf::receiver::{handler, lifecycle};
use wharf::receiver::types::{Batch, Body, Failure, Message, Redelivery};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:recorder;
        world recorder {
            include wharf:receiver/base@0.1.0;
            export wharf:receiver/lifecycle@0.1.0;
        }
    ",
    world: "fixture:recorder/recorder",
    generate_all,
});

/// One line of the output.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'a str,
    offset: u64,
    agent: &'a str,
    redelivery: &'a str,
    id: Option<&'a str>,
    body: Shown<'a>,
}

/// JSON bodies stand in the line as they came, MessagePack ones as the list of their bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Json(&'a RawValue),
    Bytes(&'a [u8]),
}

struct Recorder;

impl handler::Guest for Recorder {
    fn handle(batch: Batch) -> Vec<Failure> {
        let mut lines = Vec::new();
        for message in &batch.messages {
            serde_json::to_writer(&mut lines, &line(&batch.data_type, message))
                .expect("a line is valid JSON");
            lines.push(b'\n');
        }
        // One write for the whole batch: a call for each line would make the log the slowest part of a test.
        std::io::stdout().write_all(&lines).expect("standard output is open");
        Vec::new()
    }
}

fn line<'a>(data_type: &'a str, message: &'a Message) -> Line<'a> {
    Line {
        r#type: data_type,
        offset: message.offset,
        agent: &message.agent,
        redelivery: match message.redelivery {
            Redelivery::None => "none",
            Redelivery::Again => "again",
            Redelivery::Redrive => "redrive",
        },
        id: message.id.as_deref(),
        body: match &message.body {
            Body::Json(text) => Shown::Json(serde_json::from_str(text).expect("the host gives valid JSON")),
            Body::Msgpack(bytes) => Shown::Bytes(bytes),
        },
    }
}

impl lifecycle::Guest for Recorder {
    fn init() -> Result<(), String> {
        println!("init");
        Ok(())
    }

    fn terminate() {
        println!("terminate");
    }
}

export!(Recorder);
