//! The smallest useful receiver: it writes one line per message to the server's log. Copy this folder to start your own;
//! the README explains it line by line. It keeps nothing and refuses nothing.

// Reads the WIT package, the contract between Wharf and a receiver, and generates Rust for it.
wit_bindgen::generate!({ path: "../../wit", world: "base", generate_all });

use exports::wharf::receiver::handler::{Batch, Failure, Guest};
use wharf::receiver::types::{Body, Message};

struct Journal;

impl Guest for Journal {
    // Wharf calls this for every batch. All messages of a batch have the same data type.
    fn handle(batch: Batch) -> Vec<Failure> {
        for message in &batch.messages {
            println!("{}", line(&batch.data_type, message));
        }
        // The messages that failed: none. Wharf will not deliver this batch again.
        Vec::new()
    }
}

fn line(data_type: &str, message: &Message) -> String {
    let body = match &message.body {
        // JSON may be spread over several lines; between its tokens a space means the same as a line break.
        Body::Json(text) => text.replace(['\n', '\r'], " "),
        Body::Msgpack(bytes) => format!("{} bytes of MessagePack", bytes.len()),
    };
    // An agent chooses its id: `{:?}` quotes it and escapes line breaks, so that it cannot forge a line.
    format!("{:?} {data_type} {} {body}", message.agent, message.offset)
}

// Makes `Journal` what the component exports.
export!(Journal);
