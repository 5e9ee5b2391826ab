//! Makes objects of the host and never gives them back.

use std::mem::forget;

use crate::wasi::clocks::monotonic_clock::subscribe_duration;
use crate::wasi::http::types::Fields;

/// Makes things to wait for.
#[inline(never)]
pub fn pollables() {
    loop {
        forget(subscribe_duration(1));
    }
}

/// Makes headers of requests.
#[inline(never)]
pub fn fields() {
    loop {
        forget(Fields::new());
    }
}
