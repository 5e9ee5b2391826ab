//! MessagePack as a tree, with the mapping to JSON computed over it: what the mapping over bytes is compared with.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Text(String),
    Binary(Vec<u8>),
    Extension(i8, Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

/// Any map. Some have keys that read the same in JSON, and some have keys in keys.
pub(super) fn map() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Nil),
        any::<bool>().prop_map(Tree::Bool),
        any::<u64>().prop_map(Tree::Unsigned),
        any::<i64>().prop_map(Tree::Signed),
        any::<f32>().prop_map(Tree::F32),
        any::<f64>().prop_map(Tree::F64),
        super::text(0..=99).prop_map(Tree::Text),
        vec(any::<u8>(), 0..300).prop_map(Tree::Binary),
        (any::<i8>(), vec(any::<u8>(), 0..20)).prop_map(|(kind, data)| Tree::Extension(kind, data)),
        (prop_oneof![Just(4_usize), Just(8), Just(12)])
            .prop_flat_map(|length| vec(any::<u8>(), length))
            .prop_map(|data| Tree::Extension(-1, data)),
        vec(any::<u8>(), 0..40).prop_map(Tree::Binary),
    ];
    let value = leaf.prop_recursive(5, 32, 5, |inner| {
        prop_oneof![vec(inner.clone(), 0..5).prop_map(Tree::List), pairs(inner)]
    });
    pairs(value)
}

fn pairs(value: impl Strategy<Value = Tree> + Clone + 'static) -> impl Strategy<Value = Tree> {
    let few = prop_oneof![
        "[a-d1-4]".prop_map(Tree::Text),
        (0..5_u64).prop_map(Tree::Unsigned),
        "[a-z]{4}".prop_map(Tree::Text),
    ];
    let key = prop_oneof![9 => few, 3 => super::text(0..=40).prop_map(Tree::Text), 1 => value.clone()];
    prop_oneof![4 => vec((key.clone(), value), 0..5), 1 => vec((key, Just(Tree::Nil)), 0..40)]
        .prop_map(Tree::Map)
}

impl Tree {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        use rmp::encode as to;
        match self {
            Tree::Nil => to::write_nil(out).unwrap(),
            Tree::Bool(value) => to::write_bool(out, *value).unwrap(),
            Tree::Unsigned(number) => drop(to::write_uint(out, *number).unwrap()),
            Tree::Signed(number) => drop(to::write_sint(out, *number).unwrap()),
            Tree::F32(number) => to::write_f32(out, *number).unwrap(),
            Tree::F64(number) => to::write_f64(out, *number).unwrap(),
            Tree::Text(text) => to::write_str(out, text).unwrap(),
            Tree::Binary(data) => to::write_bin(out, data).unwrap(),
            Tree::Extension(kind, data) => {
                to::write_ext_meta(out, data.len().try_into().unwrap(), *kind).unwrap();
                out.extend_from_slice(data);
            }
            Tree::List(values) => {
                to::write_array_len(out, values.len().try_into().unwrap()).unwrap();
                values.iter().for_each(|value| value.write(out));
            }
            Tree::Map(pairs) => {
                to::write_map_len(out, pairs.len().try_into().unwrap()).unwrap();
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
        }
    }

    /// The JSON that it maps to.
    pub(crate) fn json(&self) -> String {
        match self {
            Tree::Nil => "null".into(),
            Tree::Bool(value) => value.to_string(),
            Tree::Unsigned(number) => number.to_string(),
            Tree::Signed(number) => number.to_string(),
            Tree::F32(number) => serde_json::to_string(number).unwrap(),
            Tree::F64(number) => serde_json::to_string(number).unwrap(),
            Tree::Text(text) => serde_json::to_string(text).unwrap(),
            Tree::Binary(data) => format!("\"{}\"", STANDARD.encode(data)),
            Tree::Extension(kind, data) => match seconds_and_nanoseconds(*kind, data) {
                Some((seconds, nanoseconds)) => {
                    format!(r#"{{"$ext":-1,"seconds":{seconds},"nanoseconds":{nanoseconds}}}"#)
                }
                None => format!(r#"{{"$ext":{kind},"data":"{}"}}"#, STANDARD.encode(data)),
            },
            Tree::List(values) => {
                format!("[{}]", values.iter().map(Tree::json).collect::<Vec<_>>().join(","))
            }
            Tree::Map(pairs) => {
                let pair = |(key, value): &(Tree, Tree)| {
                    format!("{}:{}", serde_json::json!(key.key()), value.json())
                };
                format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(","))
            }
        }
    }

    fn key(&self) -> String {
        match self {
            Tree::Text(text) => text.clone(),
            Tree::Binary(data) => STANDARD.encode(data),
            other => other.json(),
        }
    }

    pub(crate) fn depth(&self) -> usize {
        match self {
            Tree::List(values) => 1 + values.iter().map(Tree::depth).max().unwrap_or(0),
            Tree::Map(pairs) => {
                1 + pairs.iter().flat_map(|(key, value)| [key.depth(), value.depth()]).max().unwrap_or(0)
            }
            Tree::Extension(..) => 1,
            _ => 0,
        }
    }

    /// Whether all keys of each map differ, also of maps in keys, and no key has such a key inside.
    pub(crate) fn keys_are_simple_and_distinct(&self) -> bool {
        match self {
            Tree::List(values) => values.iter().all(Tree::keys_are_simple_and_distinct),
            Tree::Map(pairs) => {
                let keys: HashSet<String> = pairs.iter().map(|(key, _)| key.key()).collect();
                keys.len() == pairs.len()
                    && pairs.iter().all(|(key, value)| {
                        !key.has_nested_keys()
                            && key.keys_are_simple_and_distinct()
                            && value.keys_are_simple_and_distinct()
                    })
            }
            _ => true,
        }
    }

    fn has_nested_keys(&self) -> bool {
        match self {
            Tree::List(values) => values.iter().any(Tree::has_nested_keys),
            Tree::Map(pairs) => pairs.iter().any(|(key, value)| key.depth() > 0 || value.has_nested_keys()),
            _ => false,
        }
    }
}

fn seconds_and_nanoseconds(kind: i8, data: &[u8]) -> Option<(i128, u64)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let (seconds, nanoseconds) = match (kind, data.len()) {
        (-1, 4) => (number(data), 0),
        (-1, 8) => (number(data) % (1 << 34), number(data) >> 34),
        (-1, 12) => (number(&data[4..]), number(&data[..4])),
        _ => return None,
    };
    let signed = |number: u128| i128::try_from(number).unwrap();
    let seconds = if seconds >> 63 == 1 { signed(seconds) - (1 << 64) } else { signed(seconds) };
    (nanoseconds < 1_000_000_000).then(|| (seconds, u64::try_from(nanoseconds).unwrap()))
}
