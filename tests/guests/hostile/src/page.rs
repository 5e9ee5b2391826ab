//! Pages that begin and never end.

use crate::compute;
use crate::wasi::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use crate::wasi::io::streams::OutputStream;

/// What `blocking-write-and-flush` takes at once.
const CHUNK: usize = 4096;

/// Sends a part and then waits, with the body open.
#[inline(never)]
pub fn stall(out: ResponseOutparam) {
    let (_body, stream) = begin(out);
    write(&stream);
    compute::sleep();
}

/// Sends a body without end.
#[inline(never)]
pub fn endless(out: ResponseOutparam) {
    let (_body, stream) = begin(out);
    while write(&stream) {}
}

/// Sends a part, and returns as if that was all.
#[inline(never)]
pub fn unfinished(out: ResponseOutparam) {
    let (_body, stream) = begin(out);
    write(&stream);
}

fn begin(out: ResponseOutparam) -> (OutgoingBody, OutputStream) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body was not taken before");
    let stream = body.write().expect("the stream was not taken before");
    ResponseOutparam::set(out, Ok(response));
    (body, stream)
}

/// Whether somebody still reads.
fn write(stream: &OutputStream) -> bool {
    stream.blocking_write_and_flush(&[b'x'; CHUNK]).is_ok()
}
