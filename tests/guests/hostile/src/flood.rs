//! Gives the host more than anybody can want, many small things or one large one.

use std::io::Write;

use crate::wasi::keyvalue::store::{Bucket, open};
use crate::wasi::logging::logging::{self, Level};
use crate::wharf::receiver::live::publish;

/// Lines of one call: a hundred times what a receiver may write in a second.
const LINES: usize = 10_000;

/// One large thing: several times what the host takes in one call, and less than a guest's memory.
const HUGE: usize = 24 * 1024 * 1024;

/// A value of the key-value store.
const VALUE: usize = 16 * 1024;

/// Prints many lines.
#[inline(never)]
pub fn print() {
    write_lines(&mut std::io::stdout());
}

/// Prints many lines to standard error.
#[inline(never)]
pub fn print_errors() {
    write_lines(&mut std::io::stderr());
}

/// Logs many lines.
#[inline(never)]
pub fn log() {
    for _ in 0..LINES {
        logging::log(Level::Error, "flood", "more and more and more");
    }
}

/// Fills the key-value store, until it is refused.
#[inline(never)]
pub fn store() {
    let bucket = bucket();
    let value = [7; VALUE];
    for number in 0_u64.. {
        if let Err(error) = bucket.set(&number.to_string(), &value) {
            println!("after {number} values: {error:?}");
            break;
        }
    }
}

/// Writes the same value again and again, for ever.
#[inline(never)]
pub fn store_again() {
    let bucket = bucket();
    let value = [7; VALUE];
    while bucket.set("key", &value).is_ok() {}
}

/// Publishes a huge payload.
#[inline(never)]
pub fn publish_huge() {
    publish(None, &"x".repeat(HUGE));
}

/// Stores a huge value.
#[inline(never)]
pub fn store_huge() {
    println!("storing it gave {:?}", bucket().set("key", &vec![7; HUGE]));
}

fn bucket() -> Bucket {
    open("").expect("the store can be opened")
}

fn write_lines(stream: &mut impl Write) {
    for _ in 0..LINES {
        writeln!(stream, "more and more and more").expect("the stream is open");
    }
}
