use proptest::prelude::*;

use super::*;
use crate::samples;

fn json(answer: &Answer) -> String {
    String::from_utf8(answer.encode(Encoding::Json)).unwrap()
}

#[test]
fn a_bare_success_is_exactly_what_upstream_answered() {
    let answer = Answer::Success { reference: None, token: None };
    assert_eq!(json(&answer), r#"{"result":"success"}"#);
    assert_eq!(answer.encode(Encoding::Msgpack), b"\x81\xa6result\xa7success");
}

#[test]
fn answers_as_the_protocol_writes_them() {
    let success = Answer::Success { reference: Some(7_u64.into()), token: Some("t".into()) };
    assert_eq!(json(&success), r#"{"result":"success","ref":7,"token":"t"}"#);
    let error = Answer::Error { reference: Some("r".into()), refusal: Refusal::missing_field("id") };
    assert_eq!(
        json(&error),
        r#"{"result":"error","ref":"r","error":{"code":"missing_field","message":"field `id` is missing"}}"#
    );
    let batch = Answer::Batch { reference: Some((-1_i64).into()), accepted: 3, errors: vec![] };
    assert_eq!(json(&batch), r#"{"result":"success","ref":-1,"accepted":3}"#);
    let partial = Answer::Batch {
        reference: None,
        accepted: 0,
        errors: vec![(2, Refusal { retry_after_ms: Some(5), ..Refusal::new(Code::Overloaded, "full") })],
    };
    assert_eq!(
        json(&partial),
        r#"{"result":"partial","accepted":0,"errors":[{"index":2,"code":"overloaded","message":"full","retry_after_ms":5}]}"#
    );
}

#[test]
fn what_is_no_answer_is_a_named_error() {
    let decode = |text: &str| Answer::decode(Encoding::Json, text.as_bytes()).unwrap_err();
    assert!(matches!(decode(""), AnswerError::Json(_)));
    assert!(matches!(decode(r#"{"result":"maybe"}"#), AnswerError::Json(_)));
    assert!(matches!(decode(r#"{"result":"error"}"#), AnswerError::MissingField { field: "error", .. }));
    assert!(matches!(decode(r#"{"result":"partial"}"#), AnswerError::MissingField { field: "accepted", .. }));
    for hostile in ["[".repeat(1 << 20), format!("{{\"result\":\"success\",\"x\":{}", "[".repeat(1 << 20))] {
        assert!(matches!(decode(&hostile), AnswerError::Json(_)));
    }
    let unpack = |bytes: &[u8]| Answer::decode(Encoding::Msgpack, bytes).unwrap_err();
    assert!(matches!(unpack(&[0x91; 1 << 20]), AnswerError::Msgpack(_)));
    let mut nested = b"\x82\xa6result\xa7success\xa1x".to_vec();
    nested.resize(1 << 20, 0x91);
    assert!(matches!(unpack(&nested), AnswerError::Msgpack(_)));
}

proptest! {
    #[test]
    fn every_answer_survives_both_encodings(answer in samples::answer(), encoding in samples::encoding()) {
        prop_assert_eq!(Answer::decode(encoding, &answer.encode(encoding)).unwrap(), answer);
    }

    #[test]
    fn whatever_comes_is_an_answer_or_an_error(
        answer in samples::answer(),
        encoding in samples::encoding(),
        damage in samples::damage(),
    ) {
        // Neither panics; what still reads as an answer can be written again.
        let bytes = damage.apply(answer.encode(encoding));
        if let Ok(answer) = Answer::decode(encoding, &bytes) {
            prop_assert_eq!(Answer::decode(encoding, &answer.encode(encoding)).unwrap(), answer);
        }
    }
}
