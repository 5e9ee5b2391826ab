//! Reads the receiver's own settings: `[receivers.tour.config]` in the config of the server.

use crate::wasi::config::store;

/// The setting `greeting`, or a default. Settings are texts, whatever they are in the config.
pub fn greeting() -> Result<String, String> {
    let greeting = store::get("greeting").map_err(|error| format!("failed to read settings: {error:?}"))?;
    Ok(greeting.unwrap_or_else(|| "hello".into()))
}

/// Where messages are forwarded to, if anywhere. Settings are environment variables too, which every language can read.
pub fn forward_to() -> Option<String> {
    std::env::var("forward.to").ok()
}
