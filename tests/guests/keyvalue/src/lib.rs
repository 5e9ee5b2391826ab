//! Uses the key-value store as the body of a message tells it to: `{"do": "get", "key": "k"}` and so on, see [`Order`]. What
//! came of it is the reason with which it refuses the message, so a test has the answer in its hand.

use std::fmt::Debug;

use serde::Deserialize;

use exports::wharf::receiver::handler::Guest;
use wasi::keyvalue::atomics::{self, Cas, CasError};
use wasi::keyvalue::batch;
use wasi::keyvalue::store::{self, Bucket, Error};
use wharf::receiver::types::{Batch, Body, Failure, FailureAction};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:keyvalue;
        world keyvalue {
            include wharf:receiver/base@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
        }
    ",
    world: "fixture:keyvalue/keyvalue",
    generate_all,
});

/// What a body can order.
#[derive(Deserialize)]
struct Order {
    #[serde(flatten)]
    action: Action,
    /// The bucket that it is done to.
    #[serde(default)]
    bucket: String,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Action {
    Get {
        key: String,
    },
    Set {
        key: String,
        value: String,
    },
    /// Sets a value of that many bytes.
    Fill {
        key: String,
        bytes: usize,
    },
    Delete {
        key: String,
    },
    Exists {
        key: String,
    },
    List {
        cursor: Option<String>,
    },
    /// Follows the cursors, and says how many keys each page had.
    Count,
    Increment {
        key: String,
        delta: i64,
    },
    /// Looks at a key, sets it to something else if `meanwhile` says so, and swaps.
    Swap {
        key: String,
        value: String,
        meanwhile: Option<String>,
    },
    /// The same, but looks again before the swap.
    LookAgain {
        key: String,
        value: String,
        meanwhile: String,
    },
    GetMany {
        keys: Vec<String>,
    },
    SetMany {
        pairs: Vec<(String, String)>,
    },
    DeleteMany {
        keys: Vec<String>,
    },
    /// Sets so many keys, in calls of a thousand.
    SetNumbered {
        count: usize,
    },
    /// Opens buckets until the host does not let it any more.
    Leak,
}

struct KeyValue;

impl Guest for KeyValue {
    fn handle(batch: Batch) -> Vec<Failure> {
        let answer = |body: &Body| match body {
            Body::Json(text) => obey(&serde_json::from_str(text).expect("an order that is known")),
            Body::Msgpack(_) => "not an order".into(),
        };
        let refuse = |message: &wharf::receiver::types::Message| Failure {
            offset: message.offset,
            action: FailureAction::Reject,
            reason: answer(&message.body),
        };
        batch.messages.iter().map(refuse).collect()
    }
}

fn obey(order: &Order) -> String {
    match store::open(&order.bucket).and_then(|bucket| act(&bucket, &order.action)) {
        Ok(answer) => answer,
        Err(Error::Other(reason)) => reason,
        Err(error) => format!("{error:?}"),
    }
}

fn act(bucket: &Bucket, action: &Action) -> Result<String, Error> {
    match action {
        Action::Get { key } => bucket.get(key).map(text).map(shown),
        Action::Set { key, value } => bucket.set(key, value.as_bytes()).map(shown),
        Action::Fill { key, bytes } => bucket.set(key, &vec![b'x'; *bytes]).map(shown),
        Action::Delete { key } => bucket.delete(key).map(shown),
        Action::Exists { key } => bucket.exists(key).map(shown),
        Action::List { cursor } => bucket.list_keys(cursor.as_deref()).map(shown),
        Action::Count => count(bucket).map(shown),
        Action::Increment { key, delta } => atomics::increment(bucket, key, *delta).map(shown),
        Action::Swap { key, value, meanwhile } => {
            let cas = Cas::new(bucket, key)?;
            if let Some(meanwhile) = meanwhile {
                bucket.set(key, meanwhile.as_bytes())?;
            }
            swap(cas, value)
        }
        Action::LookAgain { key, value, meanwhile } => {
            let cas = Cas::new(bucket, key)?;
            bucket.set(key, meanwhile.as_bytes())?;
            let seen = text(cas.current()?);
            swap(cas, value).map(|swapped| format!("saw {seen:?}, {swapped}"))
        }
        Action::GetMany { keys } => {
            let pairs = batch::get_many(bucket, keys)?;
            Ok(shown(pairs.into_iter().map(|(key, value)| (key, text(value))).collect::<Vec<_>>()))
        }
        Action::SetMany { pairs } => {
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect();
            batch::set_many(bucket, &pairs).map(shown)
        }
        Action::DeleteMany { keys } => batch::delete_many(bucket, keys).map(shown),
        Action::SetNumbered { count } => {
            let pairs: Vec<_> = (0..*count).map(|number| (format!("{number:06}"), Vec::new())).collect();
            for pairs in pairs.chunks(1000) {
                batch::set_many(bucket, pairs)?;
            }
            Ok(shown(()))
        }
        Action::Leak => {
            let mut buckets = Vec::new();
            loop {
                buckets.push(store::open("")?);
            }
        }
    }
}

fn swap(cas: Cas, value: &str) -> Result<String, Error> {
    match atomics::swap(cas, value.as_bytes()) {
        Ok(()) => Ok("swapped".into()),
        Err(CasError::CasFailed(now)) => Ok(format!("conflict with {:?}", text(now.current()?))),
        Err(CasError::StoreError(error)) => Err(error),
    }
}

fn count(bucket: &Bucket) -> Result<Vec<usize>, Error> {
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor.as_deref())?;
        pages.push(page.keys.len());
        if page.cursor.is_none() {
            return Ok(pages);
        }
        cursor = page.cursor;
    }
}

fn text(value: Option<Vec<u8>>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn shown(answer: impl Debug) -> String {
    format!("{answer:?}")
}

export!(KeyValue);
