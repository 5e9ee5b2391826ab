//! Takes all the memory that it gets.

use std::cell::RefCell;
use std::hint::black_box;

/// What is taken at once.
const CHUNK: usize = 256 * 1024;

/// Chunks that are given back in the end: room for a batch.
const SPARE: usize = 8;

thread_local! {
    static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Allocates until there is no more, which ends a program.
#[inline(never)]
pub fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

/// Takes nearly all memory that there is, touches it, and keeps it.
#[inline(never)]
pub fn hoard() {
    // Room for a guest of 4 GiB, so that this list itself need not grow when all is taken.
    let mut hoard = Vec::with_capacity(16 * 1024);
    loop {
        let mut chunk = Vec::new();
        // Gives an error where `allocate` ends the program.
        if chunk.try_reserve_exact(CHUNK).is_err() {
            break;
        }
        chunk.resize(CHUNK, 1);
        hoard.push(chunk);
    }
    hoard.truncate(hoard.len().saturating_sub(SPARE));
    println!("holds {} MiB", hoard.len() * CHUNK / 1024 / 1024);
    HOARD.set(hoard);
}
