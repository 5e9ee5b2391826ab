//! The body of a request, read within its bounds: so many bytes, in so much time, and into room that was taken for it.

use std::time::Duration;

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use crate::frontend::room::{FREE_BYTES, Room, Taken, next_step};

/// A body that was read.
#[derive(Debug)]
pub struct Body {
    /// All of it.
    pub bytes: Bytes,
    /// The room that it takes until this is dropped.
    pub room: Taken,
}

/// Why there is none.
#[derive(Debug)]
pub enum BodyError {
    /// It is larger than it may be.
    TooLarge,
    /// It did not arrive in time.
    Slow,
    /// There was no room for it in time.
    NoRoom,
    /// The connection or its encoding broke.
    Broken(axum::Error),
}

/// Reads a body of at most `max_bytes`. It may take `wait` to arrive, and as long again to wait for room.
pub async fn read(
    mut body: axum::body::Body,
    max_bytes: usize,
    room: &Room,
    wait: Duration,
) -> Result<Body, BodyError> {
    let hint = body.size_hint();
    if usize::try_from(hint.lower()).map_or(true, |lower| lower > max_bytes) {
        return Err(BodyError::TooLarge);
    }
    let most = hint.upper().and_then(|upper| usize::try_from(upper).ok()).unwrap_or(max_bytes).min(max_bytes);
    let (mut to_arrive, mut for_room) = (wait, wait);
    let mut bytes = BytesMut::new();
    let mut held = room.none();
    loop {
        let since = Instant::now();
        let frame = timeout(to_arrive, body.frame()).await.map_err(|_| BodyError::Slow)?;
        to_arrive = to_arrive.saturating_sub(since.elapsed());
        let Some(frame) = frame else { return Ok(Body { bytes: bytes.freeze(), room: held }) };
        // What is no data are trailers, which mean nothing here.
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        let arrived = bytes.len().saturating_add(data.len());
        if arrived > max_bytes {
            return Err(BodyError::TooLarge);
        }
        if arrived > held.bytes().max(FREE_BYTES) {
            let since = Instant::now();
            let growing = room.grow(held, next_step(arrived, most));
            held = timeout(for_room, growing).await.map_err(|_| BodyError::NoRoom)?;
            for_room = for_room.saturating_sub(since.elapsed());
        }
        bytes.extend_from_slice(&data);
    }
}
