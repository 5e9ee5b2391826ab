//! Arguments that several commands share, and what they may hold. A wrong one never gets past the command line.

use wharf_protocol::{AgentId, Encoding, MAX_DATA_TYPE_BYTES};

/// The encodings, as they are spelled in arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text frames with JSON
    Json,
    /// Binary frames with MessagePack
    Msgpack,
}

impl From<Format> for Encoding {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Encoding::Json,
            Format::Msgpack => Encoding::Msgpack,
        }
    }
}

/// Parses the id of an agent.
///
/// # Errors
///
/// What an id must be, for one that is empty or too long.
pub fn agent_id(text: &str) -> Result<AgentId, String> {
    AgentId::new(text).map_err(|refusal| refusal.message)
}

/// Parses the name of a data type. Whether a server knows it shows only when it is asked.
///
/// # Errors
///
/// What a name must be, for one that is empty or too long.
pub fn data_type(text: &str) -> Result<String, String> {
    if (1..=MAX_DATA_TYPE_BYTES).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("found {} bytes, expected 1 to {MAX_DATA_TYPE_BYTES}", text.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_types_are_bounded() {
        for (length, fits) in [(0, false), (1, true), (255, true), (256, false)] {
            assert_eq!(agent_id(&"x".repeat(length)).is_ok(), fits, "an id of {length} bytes");
            assert_eq!(data_type(&"x".repeat(length)).is_ok(), fits, "a type of {length} bytes");
        }
    }
}
