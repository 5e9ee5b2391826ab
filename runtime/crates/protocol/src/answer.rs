//! What the server says to a frame. The server encodes answers, our own clients decode them.

use serde::{Deserialize, Serialize};

use crate::call::Reference;
use crate::encoding::Encoding;
use crate::refusal::{Code, Refusal};

/// The answer to one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A single call was accepted. Without `ref` and token it is exactly `{"result":"success"}`.
    Success {
        /// The `ref` of the call.
        reference: Option<Reference>,
        /// What a `session` gives.
        token: Option<String>,
    },
    /// A single call, or a whole frame, was refused.
    Error {
        /// The `ref` of the call, where it could be read.
        reference: Option<Reference>,
        /// Why.
        refusal: Refusal,
    },
    /// A list of calls was taken in: as `success` if there are no errors, otherwise as `partial`.
    Batch {
        /// The `ref` of the frame.
        reference: Option<Reference>,
        /// How many of the calls were accepted.
        accepted: u64,
        /// The position in the list of each call that was refused, and why.
        errors: Vec<(usize, Refusal)>,
    },
}

/// Why bytes are no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not JSON, or not of the shape of an answer.
    #[error("read an answer in JSON")]
    Json(#[source] serde_json::Error),
    /// Not MessagePack, or not of the shape of an answer.
    #[error("read an answer in MessagePack")]
    Msgpack(#[source] rmp_serde::decode::Error),
    /// The field that an answer of this result has is not there.
    #[error("read an answer `{result}` without its field `{field}`")]
    MissingField {
        /// The result that the answer names.
        result: &'static str,
        /// The field that it should have.
        field: &'static str,
    },
}

impl Answer {
    /// The answer as it goes over the wire.
    pub fn encode(&self, encoding: Encoding) -> Vec<u8> {
        encoding.write(&match self {
            Answer::Success { reference, token } => WireAnswer {
                reference: reference.clone(),
                token: token.clone(),
                ..WireAnswer::of(WireResult::Success)
            },
            Answer::Error { reference, refusal } => WireAnswer {
                reference: reference.clone(),
                error: Some(WireRefusal::from(refusal)),
                ..WireAnswer::of(WireResult::Error)
            },
            Answer::Batch { reference, accepted, errors } => WireAnswer {
                reference: reference.clone(),
                accepted: Some(*accepted),
                errors: errors
                    .iter()
                    .map(|(index, refusal)| WireItem { index: *index, refusal: WireRefusal::from(refusal) })
                    .collect(),
                ..WireAnswer::of(if errors.is_empty() { WireResult::Success } else { WireResult::Partial })
            },
        })
    }

    /// Reads an answer. Fields that this version does not know are ignored.
    ///
    /// # Errors
    ///
    /// An [`AnswerError`] for anything that [`Answer::encode`] does not write.
    pub fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Answer, AnswerError> {
        let answer: WireAnswer = match encoding {
            Encoding::Json => serde_json::from_slice(bytes).map_err(AnswerError::Json)?,
            Encoding::Msgpack => rmp_serde::from_slice(bytes).map_err(AnswerError::Msgpack)?,
        };
        let WireAnswer { result, reference, token, accepted, error, errors } = answer;
        match (result, accepted) {
            (WireResult::Success, None) => Ok(Answer::Success { reference, token }),
            (WireResult::Success | WireResult::Partial, Some(accepted)) => {
                let errors = errors.into_iter().map(|item| (item.index, item.refusal.into())).collect();
                Ok(Answer::Batch { reference, accepted, errors })
            }
            (WireResult::Partial, None) => {
                Err(AnswerError::MissingField { result: "partial", field: "accepted" })
            }
            (WireResult::Error, _) => {
                let refusal =
                    error.ok_or(AnswerError::MissingField { result: "error", field: "error" })?.into();
                Ok(Answer::Error { reference, refusal })
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireResult {
    Success,
    Partial,
    Error,
}

/// The fields of all answers, in the order in which they are written.
#[derive(Serialize, Deserialize)]
struct WireAnswer {
    result: WireResult,
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    reference: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<WireRefusal>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<WireItem>,
}

impl WireAnswer {
    fn of(result: WireResult) -> Self {
        WireAnswer { result, reference: None, token: None, accepted: None, error: None, errors: Vec::new() }
    }
}

#[derive(Serialize, Deserialize)]
struct WireItem {
    index: usize,
    #[serde(flatten)]
    refusal: WireRefusal,
}

#[derive(Serialize, Deserialize)]
struct WireRefusal {
    code: Code,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl From<&Refusal> for WireRefusal {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { code, message, retry_after_ms } = refusal.clone();
        WireRefusal { code, message, retry_after_ms }
    }
}

impl From<WireRefusal> for Refusal {
    fn from(refusal: WireRefusal) -> Self {
        let WireRefusal { code, message, retry_after_ms } = refusal;
        Refusal { code, message, retry_after_ms }
    }
}

#[cfg(test)]
mod tests;
