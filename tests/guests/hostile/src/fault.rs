//! Ends itself in all the ways there are.

use crate::text;
use crate::wharf::receiver::types::Body;

/// A message far longer than anybody reads.
const HUGE: usize = 4 * 1024 * 1024;

/// Panics.
#[inline(never)]
pub fn trap() {
    panic!("told to trap");
}

/// Panics over one kind of message only.
#[inline(never)]
pub fn trap_on_poison(body: &Body) {
    assert_ne!(text(body), r#"{"poison":true}"#, "this message is poisonous");
}

/// Panics and has a lot to say about it.
#[inline(never)]
pub fn panic_huge() {
    panic!("{}", "no ".repeat(HUGE / 3));
}

/// Claims that all is well, and leaves.
#[inline(never)]
pub fn exit() {
    std::process::exit(0);
}
