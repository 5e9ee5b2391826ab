use serde_json::{Value, json};

use super::*;
use crate::wharf::receiver::types::Redelivery;

fn message(agent: &str, body: Body) -> Message {
    Message {
        offset: 7,
        agent: agent.to_owned(),
        received_at: 1_700_000_000_000,
        redelivery: Redelivery::None,
        id: None,
        sent_at: None,
        user: None,
        trace: None,
        body,
    }
}

fn payload(text: &str) -> Value {
    let update = from_message("system_metrics", &message("node-7", Body::Json(text.to_owned())));
    serde_json::from_str(&update.payload).expect("the payload is JSON")
}

#[test]
fn the_usual_body_is_split_into_kind_and_content() {
    let expected = json!({
        "agent": "node-7", "type": "system_metrics", "kind": "statistics", "at": 1_700_000_000_000_u64, "offset": 7,
        "body": {"cpu_load": 3.25},
    });
    assert_eq!(payload(r#"{"type":"statistics","body":{"cpu_load":3.25}}"#), expected);
}

#[test]
fn a_kind_may_contain_escapes() {
    assert_eq!(payload(r#"{"type":"a\"\u00e9","body":{}}"#)["kind"], "a\"é");
}

#[test]
fn a_number_keeps_all_its_digits() {
    let text = r#"{"type":"block","body":{"difficulty":340282366920938463463374607431768211454}}"#;
    let update = from_message("t", &message("a", Body::Json(text.to_owned())));
    assert!(update.payload.contains("340282366920938463463374607431768211454"));
}

#[test]
fn a_body_of_another_shape_is_shown_whole() {
    for text in [
        r#"{"cpu_load":3.25}"#,
        r#"{"type":"statistics"}"#,
        r#"{"body":{}}"#,
        r#"{"type":5,"body":{}}"#,
        r#"{"type":null,"body":{}}"#,
        r#"{"type":"","body":{}}"#,
        r#"{}"#,
    ] {
        let payload = payload(text);
        assert_eq!(payload["kind"], NO_KIND, "{text}");
        assert_eq!(payload["body"], serde_json::from_str::<Value>(text).expect("valid"), "{text}");
    }
    let doubled = payload(r#"{"type":"a","type":"b","body":{}}"#);
    assert_eq!((&doubled["kind"], &doubled["body"]["body"]), (&json!(NO_KIND), &json!({})));
    let long = "k".repeat(MAX_KIND_BYTES + 1);
    assert_eq!(payload(&json!({"type": long, "body": {}}).to_string())["kind"], NO_KIND);
}

#[test]
fn a_large_body_gives_a_notice_that_fits() {
    let text = json!({"type": "history", "body": {"text": "x".repeat(MAX_PAYLOAD_BYTES)}}).to_string();
    let payload = payload(&text);
    assert_eq!((&payload["kind"], &payload["body"]), (&json!("history"), &Value::Null));
    assert_eq!(payload["omitted_bytes"], text.len());
}

#[test]
fn message_pack_gives_a_notice() {
    let update = from_message("t", &message("a", Body::Msgpack(vec![0x80])));
    let payload: Value = serde_json::from_str(&update.payload).expect("the payload is JSON");
    assert_eq!((&payload["body"], &payload["omitted_bytes"]), (&Value::Null, &json!(1)));
}

#[test]
fn what_is_not_json_does_not_fail() {
    // The server never sends such a body.
    assert_eq!(payload("{")["body"], Value::Null);
}

#[test]
fn keys_are_unambiguous_and_short() {
    assert_ne!(key("a", "bc", "d"), key("ab", "c", "d"));
    assert_ne!(key("a", "b", "cd"), key("a", "bc", "d"));
    assert_ne!(key("1:a", "b", "c"), key("1", ":ab", "c"));
    let longest = key(&"\u{1}".repeat(255), &"t".repeat(255), &"\u{1}".repeat(MAX_KIND_BYTES));
    assert!(longest.len() <= 1024, "{}", longest.len());
}
