//! The identity that an agent gives itself.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::field;
use crate::refusal::Refusal;

/// The longest agent id. What fits a file name or a label elsewhere should fit here, and an id is stored with every
/// message.
pub const MAX_AGENT_ID_BYTES: usize = 255;

/// The `id` of an agent: text of 1 to [`MAX_AGENT_ID_BYTES`] bytes. Cloning it copies a pointer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// An id of this text.
    ///
    /// # Errors
    ///
    /// `invalid_field`, naming `id`, for a text that is empty or too long.
    pub fn new(id: impl AsRef<str>) -> Result<AgentId, Refusal> {
        let id = field::bounded("id", id.as_ref(), 1..=MAX_AGENT_ID_BYTES)?;
        Ok(AgentId(Arc::from(id)))
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for AgentId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by agents be asked with a plain text.
impl Borrow<str> for AgentId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    #[test]
    fn takes_one_to_255_bytes() {
        assert_eq!(AgentId::new("n").unwrap().as_str(), "n");
        assert_eq!(AgentId::new("n".repeat(255)).unwrap().to_string().len(), 255);
    }

    #[test]
    fn refuses_the_rest_by_name() {
        for id in [String::new(), "n".repeat(256), "é".repeat(128)] {
            let refusal = AgentId::new(id).unwrap_err();
            assert_eq!(refusal.code, Code::InvalidField);
            assert!(refusal.message.contains("`id`"), "{refusal}");
        }
    }
}
