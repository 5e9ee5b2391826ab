//! Arbitrary values of the model, for property tests of all modules.

mod tree;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::{
    AgentId, Answer, Body, Call, Code, Encoding, Limits, Message, Record, Reference, Refusal, Request,
};
pub(crate) use tree::Tree;

pub(crate) fn encoding() -> impl Strategy<Value = Encoding> {
    select(vec![Encoding::Json, Encoding::Msgpack])
}

/// Text with all that has to be escaped somewhere, of up to so many bytes.
pub(crate) fn text(bytes: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    let at_most = *bytes.end();
    prop_oneof!["[a-z\"\\\\/\u{0}-\u{1f}é😀]{0,12}", "\\PC{0,40}", Just("x".repeat(at_most))]
        .prop_filter_map("length", move |text| bytes.contains(&text.len()).then_some(text))
}

pub(crate) fn agent() -> impl Strategy<Value = AgentId> {
    text(1..=255).prop_map(|id| AgentId::new(id).unwrap())
}

pub(crate) fn reference() -> impl Strategy<Value = Option<Reference>> {
    option::of(prop_oneof![
        any::<u64>().prop_map(Reference::from),
        any::<i64>().prop_map(Reference::from),
        text(0..=128).prop_map(Reference::Text),
    ])
}

/// Any JSON value that is an object, as text.
pub(crate) fn json_object() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        text(0..=99).prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((text(0..=20), inner), 0..4).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    });
    (vec((text(0..=20), value), 0..4), any::<bool>()).prop_map(|(pairs, pretty)| {
        let object: serde_json::Value = pairs.into_iter().collect();
        if pretty { format!("{object:#}") } else { object.to_string() }
    })
}

pub(crate) fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        json_object()
            .prop_map(|text| Body::new(Encoding::Json, Bytes::from(text), &Limits::default()).unwrap()),
        tree::map().prop_filter_map("keys collide", |tree| {
            Body::new(Encoding::Msgpack, Bytes::from(tree.encode()), &Limits::default()).ok()
        }),
    ]
}

pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    tree::map()
}

fn trace() -> impl Strategy<Value = Option<String>> {
    option::of("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,20})?")
}

fn message() -> impl Strategy<Value = Message> {
    (agent(), text(1..=255), option::of(text(1..=128)), option::of(any::<u64>()), trace(), body()).prop_map(
        |(agent, data_type, message_id, sent_at, traceparent, body)| Message {
            agent,
            data_type,
            message_id,
            sent_at,
            traceparent,
            body,
        },
    )
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let call = prop_oneof![
        1 => (text(1..=255), text(1..=1024)).prop_map(|(user, password)| Call::Session { user, password }),
        1 => agent().prop_map(|agent| Call::Ping { agent }),
        1 => agent().prop_map(|agent| Call::Bye { agent }),
        3 => message().prop_map(Call::Data),
    ];
    (call, option::of(text(1..=4096))).prop_map(|(call, token)| Request { call, token })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (select(Code::ALL.to_vec()), text(0..=200), option::of(any::<u64>()))
        .prop_map(|(code, message, retry_after_ms)| Refusal { code, message, retry_after_ms })
}

pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (reference(), option::of(text(0..=99)))
            .prop_map(|(reference, token)| Answer::Success { reference, token }),
        (reference(), refusal()).prop_map(|(reference, refusal)| Answer::Error { reference, refusal }),
        (reference(), any::<u64>(), vec((0..usize::MAX, refusal()), 0..4))
            .prop_map(|(reference, accepted, errors)| Answer::Batch { reference, accepted, errors }),
    ]
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    (message(), any::<u64>(), option::of(text(0..=300)))
        .prop_map(|(message, received_at, user)| Record::Message(message.into_stored(received_at, user)))
}

/// What can happen to bytes on their way.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Replaced(Vec<u8>),
    Truncated(Index),
    Changed(Vec<(Index, u8)>),
    Inserted(Index, Vec<u8>),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(Damage::Replaced),
        any::<Index>().prop_map(Damage::Truncated),
        vec((any::<Index>(), any::<u8>()), 1..4).prop_map(Damage::Changed),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, more)| Damage::Inserted(at, more)),
    ]
}

impl Damage {
    pub(crate) fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Damage::Replaced(other) => return other.clone(),
            Damage::Truncated(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Changed(changes) => {
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            Damage::Inserted(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
        }
        bytes
    }
}
