//! Sends requests, whether it may or not: to the addresses in its setting `urls`, which are separated by blanks.

use crate::setting;
use crate::wasi::http::outgoing_handler::handle;
use crate::wasi::http::types::{
    ErrorCode, Fields, IncomingResponse, OutgoingRequest, Scheme, http_error_code,
};
use crate::wasi::io::streams::StreamError;

/// What is read of an answer at once.
const CHUNK: u64 = 64 * 1024;

/// Sends one request after the other, and prints what came of each.
#[inline(never)]
pub fn send() {
    for url in setting("urls").split(' ') {
        match answer(url) {
            Ok(bytes) => println!("{url} gave {bytes} bytes"),
            Err(error) => println!("{url} gave {error:?}"),
        }
    }
}

fn answer(url: &str) -> Result<usize, Option<ErrorCode>> {
    let rest = url.strip_prefix("http://").expect("the address begins with http://");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("the scheme is valid");
    request.set_authority(Some(authority)).expect("the authority is valid");
    request.set_path_with_query(Some(path)).expect("the path is valid");
    let answer = handle(request, None)?;
    answer.subscribe().block();
    read(&answer.get().expect("the answer is there").expect("it was not taken")?)
}

/// Reads an answer to its end, if it has one.
fn read(answer: &IncomingResponse) -> Result<usize, Option<ErrorCode>> {
    let body = answer.consume().expect("the body was not taken");
    let stream = body.stream().expect("the stream was not taken");
    let mut read = 0;
    loop {
        match stream.blocking_read(CHUNK) {
            Ok(bytes) => read += bytes.len(),
            Err(StreamError::Closed) => return Ok(read),
            Err(StreamError::LastOperationFailed(error)) => return Err(http_error_code(&error)),
        }
    }
}
