//! Sends HTTP requests. Needs a grant with the origin, such as `http = ["https://api.example.com"]`.

use crate::settings;
use crate::wasi::http::outgoing_handler::handle;
use crate::wasi::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};

/// The most that WASI lets be written at once.
const CHUNK: usize = 4096;

/// Posts a message to the address in the settings, if there is one.
pub fn forward(body: &str) -> Result<(), String> {
    let Some(address) = settings::forward_to() else { return Ok(()) };
    let status = post(&address, body).map_err(|reason| format!("failed to post to {address}: {reason}"))?;
    if status == 200 { Ok(()) } else { Err(format!("{address} answered {status}, expected 200")) }
}

fn post(address: &str, body: &str) -> Result<u16, String> {
    let (authority, path) = address
        .strip_prefix("http://")
        .and_then(|rest| rest.split_at_checked(rest.find('/')?))
        .ok_or("expected http://HOST:PORT/PATH")?;
    let headers = Fields::from_list(&[("content-type".into(), b"application/json".to_vec())])
        .map_err(|error| format!("{error:?}"))?;
    let request = OutgoingRequest::new(headers);
    request.set_method(&Method::Post).map_err(|()| "the method was refused")?;
    request.set_scheme(Some(&Scheme::Http)).map_err(|()| "the scheme was refused")?;
    request.set_authority(Some(authority)).map_err(|()| "the authority was refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "the path was refused")?;

    // The request is sent while its body is written, so `handle` comes first.
    let outgoing = request.body().map_err(|()| "the body was taken")?;
    let answer = handle(request, None).map_err(|error| error.to_string())?;
    let stream = outgoing.write().map_err(|()| "the stream was taken")?;
    for chunk in body.as_bytes().chunks(CHUNK) {
        stream.blocking_write_and_flush(chunk).map_err(|error| format!("{error:?}"))?;
    }
    drop(stream);
    OutgoingBody::finish(outgoing, None).map_err(|error| error.to_string())?;

    // Waits for the head of the answer. Its body is not read here.
    answer.subscribe().block();
    let answer = answer.get().ok_or("there is no answer yet")?.map_err(|()| "the answer was taken")?;
    Ok(answer.map_err(|error| error.to_string())?.status())
}
