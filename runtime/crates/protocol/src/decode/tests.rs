//! The rules of decoding, each in both encodings: frames are written as JSON and converted.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::refusal::Code;
use crate::{encode_batch, encode_frame, samples};

const DATA: &str = r#""call":"data","id":"node-7","type":"system_metrics","data":{"type":"statistics"}"#;

fn to_msgpack(json: &str) -> Bytes {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    rmp_serde::to_vec(&value).unwrap().into()
}

/// The same frame in both encodings.
fn both(json: &str) -> [(Encoding, Bytes); 2] {
    [(Encoding::Json, Bytes::copy_from_slice(json.as_bytes())), (Encoding::Msgpack, to_msgpack(json))]
}

fn decoded(kind: Option<CallKind>, encoding: Encoding, bytes: &Bytes) -> Result<Frame, Refusal> {
    decode(kind, encoding, bytes, &Limits::default())
}

fn one(frame: Frame) -> (Option<Reference>, Result<Request, Refusal>) {
    match frame {
        Frame::One { reference, request } => (reference, request),
        Frame::Batch { .. } => panic!("expected a single call, got {frame:?}"),
    }
}

/// Both encodings of a single call are refused with this code and a message that says all of this.
#[track_caller]
fn refused(json: &str, code: Code, says: &[&str]) {
    for (encoding, bytes) in both(json) {
        let (_, request) = one(decoded(None, encoding, &bytes).unwrap());
        let refusal = request.unwrap_err();
        assert_eq!(refusal.code, code, "{encoding:?}: {refusal}");
        for part in says {
            assert!(refusal.message.contains(part), "{encoding:?}: {refusal} lacks {part}");
        }
        assert!(refusal.message.len() < 300, "{encoding:?}: {refusal} is too long");
    }
}

#[track_caller]
fn accepted(json: &str) -> [Request; 2] {
    both(json).map(|(encoding, bytes)| one(decoded(None, encoding, &bytes).unwrap()).1.unwrap())
}

#[test]
fn each_call_is_read() {
    let agent = AgentId::new("node-7").unwrap();
    for request in accepted(r#"{"call":"ping","id":"node-7","beyond":[{"today":1}]}"#) {
        assert_eq!(request, Call::Ping { agent: agent.clone() }.into());
    }
    for request in accepted(r#"{"call":"bye","id":"node-7","message_id":7}"#) {
        assert_eq!(request, Call::Bye { agent: agent.clone() }.into());
    }
    for request in accepted(r#"{"call":"session","user":"ops","password":"s3cret\n","token":"t"}"#) {
        let call = Call::Session { user: "ops".into(), password: "s3cret\n".into() };
        assert_eq!(request, Request { call, token: Some("t".into()) });
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for request in accepted(&format!(r#"{{{DATA},"message_id":"m-1","sent_at":5,"traceparent":"{trace}"}}"#))
    {
        let Call::Data(message) = request.call else { panic!("expected data") };
        assert_eq!(message.agent, agent);
        assert_eq!(message.data_type, "system_metrics");
        assert_eq!(message.message_id.as_deref(), Some("m-1"));
        assert_eq!(message.sent_at, Some(5));
        assert_eq!(message.traceparent.as_deref(), Some(trace));
        assert_eq!(message.body.to_json(), r#"{"type":"statistics"}"#);
    }
}

#[test]
fn the_body_is_a_slice_of_the_frame() {
    for (encoding, frame) in both(&format!("[{{{DATA}}}]")) {
        let Frame::Batch { requests, .. } = decoded(None, encoding, &frame).unwrap() else {
            panic!("expected a batch");
        };
        let [Ok(Request { call: Call::Data(message), .. })] = requests.as_slice() else {
            panic!("expected one message");
        };
        let within = frame.as_ptr_range();
        assert!(within.contains(&message.body.bytes().as_ptr()));
        assert_eq!(message.body.encoding(), encoding);
    }
}

#[test]
fn white_space_and_escapes_change_nothing() {
    let text = " \n{ \"c\\u0061ll\" : \"pin\\u0067\" ,\t\"id\" : \"\\u00e9\\n\" } \r\n";
    let frame = decoded(None, Encoding::Json, &Bytes::from_static(text.as_bytes())).unwrap();
    assert_eq!(one(frame).1.unwrap(), Call::Ping { agent: AgentId::new("é\n").unwrap() }.into());
}

#[test]
fn the_call_must_be_known() {
    refused(r#"{"id":"n"}"#, Code::MissingField, &["`call`"]);
    refused(r#"{"call":null}"#, Code::InvalidField, &["`call`", "found null", "expected"]);
    refused(r#"{"call":["ping"]}"#, Code::InvalidField, &["`call`", "found a list"]);
    let known = ["`session`", "`ping`", "`data`", "`bye`"];
    refused(r#"{"call":""}"#, Code::UnknownCall, &known);
    refused(r#"{"call":"Ping"}"#, Code::UnknownCall, &["`Ping`"]);
    refused(&format!(r#"{{"call":"{}"}}"#, "é".repeat(99_999)), Code::UnknownCall, &["éé…`", "`bye`"]);
}

#[test]
fn the_fields_of_data_are_checked_in_order() {
    let data = |fields: &str| format!(r#"{{"call":"data"{fields}}}"#);
    refused(&data(""), Code::MissingField, &["`id`"]);
    refused(&data(r#","type":7,"data":7"#), Code::MissingField, &["`id`"]);
    refused(
        &data(r#","id":7"#),
        Code::InvalidField,
        &["`id`", "found the number `7`", "text of 1 to 255 bytes"],
    );
    refused(&data(r#","id":null"#), Code::InvalidField, &["`id`", "found null"]);
    refused(&data(r#","id":"n","data":7"#), Code::MissingField, &["`type`"]);
    refused(&data(r#","id":"n","type":true"#), Code::InvalidField, &["`type`", "the boolean `true`"]);
    refused(&data(r#","id":"n","type":"""#), Code::InvalidField, &["`type`", "of 0 bytes"]);
    refused(&data(r#","id":"n","type":"t","sent_at":"x""#), Code::MissingField, &["`data`"]);
    refused(
        &data(r#","id":"n","type":"t","data":[1],"sent_at":"x""#),
        Code::InvalidField,
        &["`data`", "found a list"],
    );
    refused(&data(r#","id":"n","type":"t","data":null"#), Code::InvalidField, &["`data`", "found null"]);
}

#[test]
fn optional_fields_are_checked_too() {
    let data = |fields: &str| format!("{{{DATA},{fields}}}");
    let long = "x".repeat(129);
    refused(&data(r#""message_id":7"#), Code::InvalidField, &["`message_id`", "1 to 128 bytes"]);
    refused(&data(r#""message_id":"""#), Code::InvalidField, &["`message_id`", "1 to 128 bytes"]);
    refused(
        &data(&format!(r#""message_id":"{long}""#)),
        Code::InvalidField,
        &["`message_id`", "of 129 bytes"],
    );
    refused(&data(r#""sent_at":-1"#), Code::InvalidField, &["`sent_at`", "the number `-1`"]);
    refused(
        &data(r#""sent_at":1.5"#),
        Code::InvalidField,
        &["`sent_at`", "the number `1.5`", "milliseconds"],
    );
    refused(&data(r#""sent_at":null"#), Code::InvalidField, &["`sent_at`", "found null"]);
    refused(&data(r#""traceparent":"00-12""#), Code::InvalidField, &["`traceparent`", "`00-12`", "W3C"]);
    refused(
        &data(&format!(r#""traceparent":"{long}""#)),
        Code::InvalidField,
        &["`traceparent`", "128 bytes"],
    );
    refused(&data(r#""token":7"#), Code::InvalidField, &["`token`", "a number"]);
    refused(&data(r#""ref":1.5"#), Code::InvalidField, &["`ref`", "`1.5`", "integer"]);
    refused(&data(r#""ref":{}"#), Code::InvalidField, &["`ref`", "an object"]);
    refused(&data(&format!(r#""ref":"{long}""#)), Code::InvalidField, &["`ref`", "128 bytes"]);
}

#[test]
fn refusals_do_not_tell_secrets() {
    let long = "hunter2".repeat(999);
    for frame in [
        format!(r#"{{"call":"session","user":"u","password":"{long}"}}"#),
        r#"{"call":"session","user":"u","password":77077}"#.to_owned(),
        format!(r#"{{"call":"ping","id":"n","token":"{long}"}}"#),
    ] {
        for (encoding, bytes) in both(&frame) {
            let refusal = one(decoded(None, encoding, &bytes).unwrap()).1.unwrap_err();
            assert_eq!(refusal.code, Code::InvalidField);
            assert!(!refusal.message.contains("hunter2") && !refusal.message.contains("77077"), "{refusal}");
        }
    }
}

#[test]
fn a_known_field_stands_once() {
    let twice = Bytes::from_static(br#"{"call":"ping","id":"a","id":"a","other":1,"other":2}"#);
    let refusal = one(decoded(None, Encoding::Json, &twice).unwrap()).1.unwrap_err();
    assert_eq!(refusal, Refusal::invalid_field("id", "found more than once, expected once"));
    let twice = Bytes::from_static(b"\x84\xa4call\xa4ping\xa2id\xa1a\xa3ref\x01\xa3ref\x01");
    let refusal = one(decoded(None, Encoding::Msgpack, &twice).unwrap()).1.unwrap_err();
    assert_eq!(refusal, Refusal::invalid_field("ref", "found more than once, expected once"));
}

#[test]
fn a_reference_is_known_even_where_the_call_is_refused() {
    for (json, expected) in [
        (r#"{"ref":18446744073709551615}"#, Reference::Integer(u64::MAX)),
        (r#"{"call":"ping","ref":-9223372036854775808}"#, Reference::Negative(i64::MIN)),
        (r#"{"call":"nonsense","ref":""}"#, "".into()),
        (r#"{"call":"data","id":"n","type":"t","data":[],"ref":"é"}"#, "é".into()),
    ] {
        for (encoding, bytes) in both(json) {
            let (reference, request) = one(decoded(None, encoding, &bytes).unwrap());
            assert_eq!(reference, Some(expected.clone()));
            request.unwrap_err();
        }
    }
}

#[test]
fn text_that_is_not_unicode_spoils_its_field_only() {
    let says = "a text that is not Unicode";
    let json =
        Bytes::from_static(br#"[{"call":"ping","id":"\ud800","ref":3},{"\ud800":1,"call":"ping","id":"b"}]"#);
    let msgpack = Bytes::from_static(
        b"\x92\x83\xa4call\xa4ping\xa2id\xa1\xff\xa3ref\x03\x83\xa1\xff\x01\xa4call\xa4ping\xa2id\xa1b",
    );
    for (encoding, bytes) in [(Encoding::Json, json), (Encoding::Msgpack, msgpack)] {
        let Frame::Batch { reference, requests } = decoded(None, encoding, &bytes).unwrap() else {
            panic!("expected a batch");
        };
        assert_eq!(reference, Some(Reference::Integer(3)));
        assert!(requests[0].as_ref().unwrap_err().message.contains(says), "{requests:?}");
        assert!(requests[1].is_ok(), "{requests:?}");
    }
}

#[test]
fn msgpack_names_and_texts_are_of_its_text_type() {
    let binary_id = Bytes::from_static(b"\x82\xa4call\xa4ping\xa2id\xc4\x01a");
    let refusal = one(decoded(None, Encoding::Msgpack, &binary_id).unwrap()).1.unwrap_err();
    assert!(refusal.message.contains("`id`") && refusal.message.contains("binary data"), "{refusal}");
    let binary_key = Bytes::from_static(b"\x83\xa4call\xa4ping\xc4\x02id\xa1a\x91\x01\x02");
    let refusal = one(decoded(None, Encoding::Msgpack, &binary_key).unwrap()).1.unwrap_err();
    assert_eq!(refusal, Refusal::missing_field("id"));
}

#[test]
fn what_is_no_frame_is_refused_whole() {
    for (json, says) in [
        ("null", "null"),
        ("true", "a boolean"),
        ("7", "a number"),
        ("-7", "a number"),
        ("1.5", "a number"),
        ("\"ping\"", "a text"),
    ] {
        for (encoding, bytes) in both(json) {
            let refusal = decoded(None, encoding, &bytes).unwrap_err();
            assert_eq!(refusal.code, Code::BadFrame);
            assert_eq!(refusal.message, format!("found {says}, expected an object or a list of objects"));
        }
    }
    let json: [&[u8]; 8] =
        [b"", b"  ", b"{", b"[{}", b"{} {}", b"[] 1", b"{\"call\":\"\xff\"}", b"{\"call\":'ping'}"];
    for bytes in json {
        let refusal = decoded(None, Encoding::Json, &Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(refusal.code, Code::BadFrame);
        assert!(refusal.message.starts_with("not JSON: "), "{refusal}");
    }
    let msgpack: [&[u8]; 6] = [b"", b"\x81", b"\x91\x81", b"\x80\x80", b"\x90\xc0", b"\x91\xc1"];
    for bytes in msgpack {
        let refusal = decoded(None, Encoding::Msgpack, &Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(refusal.code, Code::BadFrame);
        assert!(refusal.message.starts_with("not MessagePack: "), "{refusal}");
    }
}

#[test]
fn a_wrong_element_of_a_batch_spoils_nothing_else() {
    let json = format!(r#"[7,{{{DATA},"ref":"first"}},[[{{}}]],{{"call":"ping"}},null,{{{DATA},"ref":2}}]"#);
    for (encoding, bytes) in both(&json) {
        let Frame::Batch { reference, requests } = decoded(None, encoding, &bytes).unwrap() else {
            panic!("expected a batch");
        };
        assert_eq!(reference, Some("first".into()));
        let codes: Vec<_> =
            requests.iter().map(|request| request.as_ref().err().map(|refusal| refusal.code)).collect();
        let bad = Some(Code::BadFrame);
        assert_eq!(codes, [bad, None, bad, Some(Code::MissingField), bad, None]);
        assert_eq!(requests[2], Err(Refusal::bad_frame("found a list, expected an object")));
    }
}

#[test]
fn a_list_may_be_empty_but_not_too_long() {
    let limits = Limits { max_calls: 3, ..Limits::default() };
    for (json, length) in [("[]", 0), ("[{},{},{}]", 3)] {
        for (encoding, bytes) in both(json) {
            let Frame::Batch { requests, .. } = decode_frame(encoding, &bytes, &limits).unwrap() else {
                panic!("expected a batch");
            };
            assert_eq!(requests.len(), length);
        }
    }
    for (encoding, bytes) in both("[{},{},{},{}]") {
        let refusal = decode_frame(encoding, &bytes, &limits).unwrap_err();
        assert_eq!(refusal.code, Code::TooLarge);
        assert!(refusal.message.contains("at most 3"), "{refusal}");
    }
    // A list that is too long and not JSON either is not JSON.
    let broken = Bytes::from_static(b"[{},{},{},{}");
    assert_eq!(decode_frame(Encoding::Json, &broken, &limits).unwrap_err().code, Code::BadFrame);
    // What a list claims to hold reserves nothing.
    let claimed = Bytes::from_static(b"\xdd\xff\xff\xff\xff");
    let unlimited = Limits { max_calls: usize::MAX, ..Limits::default() };
    assert_eq!(decode_frame(Encoding::Msgpack, &claimed, &unlimited).unwrap_err().code, Code::BadFrame);
}

#[test]
fn over_rest_the_path_names_the_call() {
    for (encoding, bytes) in both(r#"{"call":"nonsense","id":"n"}"#) {
        let agent = AgentId::new("n").unwrap();
        let frame = decode_body(CallKind::Ping, encoding, &bytes, &Limits::default()).unwrap();
        assert_eq!(one(frame).1.unwrap(), Call::Ping { agent: agent.clone() }.into());
        let frame = decode_body(CallKind::Bye, encoding, &bytes, &Limits::default()).unwrap();
        assert_eq!(one(frame).1.unwrap(), Call::Bye { agent }.into());
        let frame = decode_body(CallKind::Data, encoding, &bytes, &Limits::default()).unwrap();
        assert_eq!(one(frame).1.unwrap_err(), Refusal::missing_field("type"));
    }
    for (encoding, bytes) in both(r#"[{"id":"n","type":"t","data":{}}]"#) {
        let frame = decode_body(CallKind::Data, encoding, &bytes, &Limits::default()).unwrap();
        assert!(matches!(frame, Frame::Batch { requests, .. } if requests.len() == 1 && requests[0].is_ok()));
        for kind in [CallKind::Session, CallKind::Ping, CallKind::Bye] {
            let refusal = decode_body(kind, encoding, &bytes, &Limits::default()).unwrap_err();
            assert_eq!(refusal, Refusal::bad_frame("found a list, expected an object"));
        }
    }
}

#[test]
fn what_upstream_agents_send_is_understood() {
    let wire = r#"{"id":"node-7","type":"ethereum_metrics","data":{"type":"statistics","body":{"active":true,"mining":false,"hashrate":0,"peers":5,"gasPrice":1000000000,"syncing":false,"uptime":100.0}}}"#;
    for (encoding, bytes) in both(wire) {
        let frame = decode_body(CallKind::Data, encoding, &bytes, &Limits::default()).unwrap();
        let Ok(Request { call: Call::Data(message), token: None }) = one(frame).1 else {
            panic!("expected a message");
        };
        let value: serde_json::Value = serde_json::from_str(&message.body.to_json()).unwrap();
        assert_eq!(value, serde_json::from_str::<serde_json::Value>(wire).unwrap()["data"]);
    }
}

#[test]
fn no_depth_reaches_the_stack() {
    let deep = 1 << 20;
    for text in [
        "[".repeat(deep),
        "{\"a\":".repeat(deep),
        format!("[{}", "[".repeat(deep)),
        format!("{{\"x\":{}", "[".repeat(deep)),
    ] {
        assert_eq!(decoded(None, Encoding::Json, &Bytes::from(text)).unwrap_err().code, Code::BadFrame);
    }
    for byte in [0x91, 0x81] {
        let bytes = Bytes::from(vec![byte; deep]);
        assert_eq!(decoded(None, Encoding::Msgpack, &bytes).unwrap_err().code, Code::BadFrame);
    }
    // Well-formed depth in an unknown field is passed over, in a body it is refused.
    let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    let packed = [vec![0x91; deep], vec![0xc0]].concat();
    let ignored = [
        (Encoding::Json, Bytes::from(format!(r#"{{"call":"ping","id":"n","x":{nested}}}"#))),
        (
            Encoding::Msgpack,
            Bytes::from([b"\x83\xa4call\xa4ping\xa2id\xa1n\xa1x".as_slice(), &packed].concat()),
        ),
    ];
    for (encoding, bytes) in ignored {
        assert!(one(decoded(None, encoding, &bytes).unwrap()).1.is_ok());
    }
    let in_body = [
        (Encoding::Json, Bytes::from(format!(r#"{{"id":"n","type":"t","data":{{"x":{nested}}}}}"#))),
        (
            Encoding::Msgpack,
            Bytes::from([b"\x83\xa2id\xa1n\xa4type\xa1t\xa4data\x81\xa1x".as_slice(), &packed].concat()),
        ),
    ];
    for (encoding, bytes) in in_body {
        let refusal = one(decoded(Some(CallKind::Data), encoding, &bytes).unwrap()).1.unwrap_err();
        assert!(refusal.message.contains("deeper than 64 levels"), "{refusal}");
    }
}

/// A body reads the same after the way through either encoding, and keeps its bytes in its own.
fn same(sent: &Request, received: &Request, encoding: Encoding) -> bool {
    let (Call::Data(before), Call::Data(after)) = (&sent.call, &received.call) else {
        return sent == received;
    };
    let bodies_agree = if before.body.encoding() == encoding {
        before.body == after.body
    } else {
        let value = |body: &Body| serde_json::from_str::<serde_json::Value>(&body.to_json()).unwrap();
        after.body.encoding() == encoding && value(&before.body) == value(&after.body)
    };
    let with_same_body = Message { body: before.body.clone(), ..after.clone() };
    bodies_agree && before == &with_same_body && sent.token == received.token
}

proptest! {
    #[test]
    fn every_call_survives_both_encodings(
        request in samples::request(),
        reference in samples::reference(),
        encoding in samples::encoding(),
    ) {
        let bytes = Bytes::from(encode_frame(&request, reference.as_ref(), encoding));
        for kind in [None, Some(request.call.kind())] {
            let (echoed, received) = one(decoded(kind, encoding, &bytes).unwrap());
            prop_assert_eq!(&echoed, &reference);
            prop_assert!(same(&request, received.as_ref().unwrap(), encoding), "{:?}", received);
        }
    }

    #[test]
    fn every_batch_survives_both_encodings(
        requests in vec(samples::request(), 0..5),
        reference in samples::reference(),
        encoding in samples::encoding(),
    ) {
        let bytes = Bytes::from(encode_batch(&requests, reference.as_ref(), encoding));
        let Frame::Batch { reference: echoed, requests: received } = decoded(None, encoding, &bytes).unwrap() else {
            panic!("expected a batch");
        };
        prop_assert_eq!(echoed, reference.filter(|_| !requests.is_empty()));
        prop_assert_eq!(received.len(), requests.len());
        for (sent, received) in requests.iter().zip(&received) {
            prop_assert!(same(sent, received.as_ref().unwrap(), encoding), "{:?}", received);
        }
    }

    #[test]
    fn whatever_comes_is_a_frame_or_a_refusal(
        requests in vec(samples::request(), 1..4),
        encoding in samples::encoding(),
        damage in samples::damage(),
        kind in prop::sample::select(vec![None, Some(CallKind::Session), Some(CallKind::Ping), Some(CallKind::Data)]),
    ) {
        let whole = if requests.len() == 1 {
            encode_frame(&requests[0], None, encoding)
        } else {
            encode_batch(&requests, None, encoding)
        };
        let bytes = Bytes::from(damage.apply(whole));
        let requests = match decoded(kind, encoding, &bytes) {
            Err(refusal) => {
                prop_assert!(matches!(refusal.code, Code::BadFrame | Code::TooLarge), "{}", refusal);
                vec![]
            }
            Ok(Frame::One { request, .. }) => vec![request],
            Ok(Frame::Batch { requests, .. }) => requests,
        };
        for request in requests {
            match request {
                Ok(Request { call: Call::Data(message), .. }) => {
                    serde_json::from_str::<&serde_json::value::RawValue>(&message.body.to_json()).unwrap();
                }
                Ok(_) => {}
                Err(refusal) => {
                    prop_assert!(!refusal.message.is_empty() && refusal.message.len() < 1000, "{}", refusal);
                }
            }
        }
    }
}
