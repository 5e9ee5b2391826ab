//! Serves the page: a handful of files that are part of the component. It knows nothing of messages.

use crate::wasi::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// The most that one call of `blocking-write-and-flush` takes, by its definition.
const MAX_WRITE_BYTES: usize = 4096;

struct Asset {
    /// What the page calls it; empty for the answers that are no file.
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const TEXT: &str = "text/plain; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: &[Asset] = &[
    Asset {
        name: "index.html",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../page/index.html"),
    },
    Asset {
        name: "style.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../page/style.css"),
    },
    Asset { name: "icon.svg", content_type: "image/svg+xml", bytes: include_bytes!("../page/icon.svg") },
    Asset { name: "app.js", content_type: SCRIPT, bytes: include_bytes!("../page/app.js") },
    Asset { name: "fleet.js", content_type: SCRIPT, bytes: include_bytes!("../page/fleet.js") },
    Asset { name: "format.js", content_type: SCRIPT, bytes: include_bytes!("../page/format.js") },
    Asset { name: "view.js", content_type: SCRIPT, bytes: include_bytes!("../page/view.js") },
];

const NOT_FOUND: Asset = Asset { name: "", content_type: TEXT, bytes: b"The dashboard has no such file.\n" };

const WRONG_METHOD: Asset =
    Asset { name: "", content_type: TEXT, bytes: b"The dashboard answers GET and HEAD only.\n" };

/// Answers a request.
pub fn serve(request: &IncomingRequest, response_out: ResponseOutparam) {
    let method = request.method();
    let (status, asset) = match method {
        Method::Get | Method::Head => find(&request.path_with_query().unwrap_or_default())
            .map_or((404, &NOT_FOUND), |asset| (200, asset)),
        _ => (405, &WRONG_METHOD),
    };
    send(status, asset, matches!(method, Method::Head), response_out);
}

/// Finds the file that a request path means. The path is the whole one, under wherever the receiver is mounted, so only what
/// follows the last slash counts; the page links its files relative to itself.
fn find(path_with_query: &str) -> Option<&'static Asset> {
    let path = path_with_query.split_once('?').map_or(path_with_query, |(path, _query)| path);
    let (_mount, name) = path.rsplit_once('/')?;
    let name = if name.is_empty() { "index.html" } else { name };
    ASSETS.iter().find(|asset| asset.name == name)
}

fn send(status: u16, asset: &Asset, head_only: bool, response_out: ResponseOutparam) {
    let headers = Fields::new();
    // A browser asks each time, so a page never mixes files of two versions of the component.
    let mut wanted = vec![("content-type", asset.content_type), ("cache-control", "no-cache")];
    if status == 405 {
        wanted.push(("allow", "GET, HEAD"));
    }
    for (name, value) in wanted {
        // Fails for a header that the host keeps to itself, which these are not.
        let _ = headers.set(name, &[value.as_bytes().to_vec()]);
    }
    let response = OutgoingResponse::new(headers);
    // Fails for a number that is no status, which these are not.
    let _ = response.set_status_code(status);
    let body = response.body();
    ResponseOutparam::set(response_out, Ok(response));
    if let Ok(body) = body {
        write(body, if head_only { &[] } else { asset.bytes });
    }
}

/// Writes the whole body; stops where the client has gone.
fn write(body: OutgoingBody, bytes: &[u8]) {
    let Ok(stream) = body.write() else { return };
    let complete = bytes.chunks(MAX_WRITE_BYTES).all(|chunk| stream.blocking_write_and_flush(chunk).is_ok());
    // The stream is a child of the body and has to go first.
    drop(stream);
    if complete {
        let _ = OutgoingBody::finish(body, None);
    }
}
