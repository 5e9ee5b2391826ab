//! Does what the body of a message tells it to do, so that one component serves many tests: `{"do": "trap"}` and so on, see
//! [`Order`]. A body without an order is handled and printed.

use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Deserialize;

use exports::wharf::receiver::handler::Guest;
use wharf::receiver::types::{Batch, Body, Failure, FailureAction, Message, Redelivery};

wit_bindgen::generate!({ path: "../../../wit", world: "wharf:receiver/base", generate_all });

/// What a body can order.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Order {
    /// Panics.
    Trap,
    /// Panics unless the message was delivered before.
    TrapOnce,
    /// Loops for ever.
    Loop,
    /// Allocates until it gets no more memory.
    Allocate,
    /// Recurses until the stack is full.
    Recurse,
    /// Ends the program as if all was well.
    Exit,
    /// Waits in a host call.
    Sleep { milliseconds: u64 },
    /// Asks for the message again after a pause.
    Retry { milliseconds: Option<u32> },
    /// Asks for the message again, unless it was delivered before.
    RetryOnce,
    /// Asks for the message again until a `release` was handled.
    Hold,
    /// Lets go what `hold` keeps, and what it will be asked to keep.
    Release,
    /// Refuses the message.
    Reject,
    /// Lists the message twice, which is a fault.
    Double,
    /// Lists an offset that is not in the batch, which is a fault.
    Stray,
    /// Prints lines to standard output, all of the given length.
    Print { lines: u32, length: usize },
    /// Prints text to standard output as it is, without a line end.
    Say { text: String },
    /// Prints what the guest can see of its environment.
    Look,
}

/// Whether a `release` was handled.
static RELEASED: AtomicBool = AtomicBool::new(false);

struct Puppet;

impl Guest for Puppet {
    fn handle(batch: Batch) -> Vec<Failure> {
        batch.messages.iter().flat_map(obey).collect()
    }
}

fn obey(message: &Message) -> Vec<Failure> {
    let Body::Json(text) = &message.body else { return Vec::new() };
    let failure = |action| Failure { offset: message.offset, action, reason: "told to".into() };
    let first = message.redelivery == Redelivery::None;
    match serde_json::from_str(text) {
        Ok(Order::Trap) => panic!("told to trap at offset {}", message.offset),
        Ok(Order::TrapOnce) if first => panic!("told to trap once at offset {}", message.offset),
        Ok(Order::Loop) => loop {
            black_box(());
        },
        Ok(Order::Allocate) => allocate(),
        Ok(Order::Recurse) => {
            black_box(recurse(0));
        }
        Ok(Order::Exit) => std::process::exit(0),
        Ok(Order::Sleep { milliseconds }) => std::thread::sleep(Duration::from_millis(milliseconds)),
        Ok(Order::Retry { milliseconds }) => return vec![failure(FailureAction::Retry(milliseconds))],
        Ok(Order::RetryOnce) if first => return vec![failure(FailureAction::Retry(None))],
        Ok(Order::Hold) if !RELEASED.load(Relaxed) => return vec![failure(FailureAction::Retry(None))],
        Ok(Order::Release) => {
            RELEASED.store(true, Relaxed);
            println!("handled {} {text}", message.offset);
        }
        Ok(Order::Reject) => return vec![failure(FailureAction::Reject)],
        Ok(Order::Double) => return vec![failure(FailureAction::Reject), failure(FailureAction::Reject)],
        Ok(Order::Stray) => {
            return vec![Failure { offset: u64::MAX, ..failure(FailureAction::Reject) }];
        }
        Ok(Order::Print { lines, length }) => {
            for _ in 0..lines {
                println!("{}", "x".repeat(length));
            }
        }
        Ok(Order::Say { text }) => {
            print!("{text}");
            std::io::stdout().flush().expect("standard output is open");
        }
        Ok(Order::Look) => look(),
        Ok(Order::TrapOnce | Order::RetryOnce | Order::Hold) | Err(_) => {
            println!("handled {} {text}", message.offset)
        }
    }
    Vec::new()
}

fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

#[expect(unconditional_recursion, reason = "filling the stack is what is asked for")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[0]
}

fn look() {
    println!("variables {:?}", std::env::vars().collect::<Vec<_>>());
    println!("arguments {:?}", std::env::args().collect::<Vec<_>>());
    println!("folder {:?}", std::fs::read_dir("/").map(|_| ()).map_err(|error| error.kind()));
    println!("file {:?}", std::fs::read("/etc/hostname").map_err(|error| error.kind()));
    println!("network {}", std::net::TcpStream::connect("127.0.0.1:1").is_ok());
    println!("input {:?}", std::io::read_to_string(std::io::stdin()).ok());
}

export!(Puppet);
