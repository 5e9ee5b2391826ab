//! Keeps the processor, or the call, for as long as it gets.

use std::hint::black_box;
use std::time::Duration;

/// Never returns.
#[inline(never)]
pub fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// Waits in a host call for longer than any deadline.
#[inline(never)]
pub fn sleep() {
    std::thread::sleep(Duration::from_secs(24 * 60 * 60));
}

/// Calls itself until the stack is full.
#[inline(never)]
pub fn recurse() {
    black_box(deeper(0));
}

#[expect(unconditional_recursion, reason = "filling the stack is what is asked for")]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    deeper(depth + 1) + frame[0]
}
