use proptest::prelude::*;

use super::*;
use crate::samples;

fn stored(body: &'static [u8]) -> StoredMessage {
    StoredMessage {
        agent: AgentId::new("node-7").unwrap(),
        received_at: 0x0102,
        message_id: None,
        sent_at: None,
        user: None,
        traceparent: None,
        body: Body::trusted(Encoding::Json, Bytes::from_static(body)),
    }
}

#[test]
fn the_layout_is_the_one_written_down() {
    let plain = Record::Message(stored(b"{}"));
    assert_eq!(plain.encode(), b"\x01\x00\x02\x01\0\0\0\0\0\0\x06node-7{}");
    let full = Record::Message(StoredMessage {
        message_id: Some("m".into()),
        sent_at: Some(3),
        user: Some("u".repeat(300)),
        traceparent: Some("t".into()),
        body: Body::trusted(Encoding::Msgpack, Bytes::from_static(b"\x80")),
        ..stored(b"")
    });
    let expected = [
        b"\x01\x1f\x02\x01\0\0\0\0\0\0\x06node-7\x01m\x03\0\0\0\0\0\0\0\xac\x02".as_slice(),
        "u".repeat(300).as_bytes(),
        b"\x01t\x80",
    ]
    .concat();
    assert_eq!(full.encode(), expected);
    for record in [plain, full] {
        let bytes = record.encode();
        assert_eq!(bytes.capacity(), bytes.len());
    }
}

#[test]
fn the_body_is_not_copied() {
    let bytes = Bytes::from(Record::Message(stored(b"{\"a\":1}")).encode());
    let Record::Message(message) = Record::decode(bytes.clone()).unwrap() else { panic!() };
    assert_eq!(message.body.bytes().as_ptr_range().end, bytes.as_ptr_range().end);
}

#[test]
fn what_is_no_record_is_a_named_error() {
    let decode = |bytes: &'static [u8]| Record::decode(Bytes::from_static(bytes)).unwrap_err();
    assert_eq!(decode(b""), RecordError::Truncated("kind"));
    assert_eq!(decode(b"\x03"), RecordError::UnknownKind(3));
    assert_eq!(decode(b"\x02\x02"), RecordError::UnknownFlags(2));
    assert_eq!(decode(b"\x02\x01\0\0"), RecordError::Truncated("time"));
    assert_eq!(decode(b"\x02\x01\0\0\0\0\0\0\0\0"), RecordError::BadText("agent id"));
    assert_eq!(decode(b"\x01"), RecordError::Truncated("flags"));
    assert_eq!(decode(b"\x01\x61"), RecordError::UnknownFlags(0x60));
    assert_eq!(decode(b"\x01\0\0"), RecordError::Truncated("received_at"));
    assert_eq!(decode(b"\x01\0\0\0\0\0\0\0\0\0"), RecordError::Truncated("agent id"));
    assert_eq!(decode(b"\x01\0\0\0\0\0\0\0\0\0\0"), RecordError::BadText("agent id"));
    assert_eq!(decode(b"\x01\0\0\0\0\0\0\0\0\0\x02a"), RecordError::Truncated("agent id"));
    assert_eq!(decode(b"\x01\0\0\0\0\0\0\0\0\0\x01\xff"), RecordError::BadText("agent id"));
    let overlong = b"\x01\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02";
    assert_eq!(decode(overlong), RecordError::BadLength("agent id"));
    let endless = b"\x01\0\0\0\0\0\0\0\0\0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80";
    assert_eq!(decode(endless), RecordError::BadLength("agent id"));
    let huge = b"\x01\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(decode(huge), RecordError::Truncated("agent id"));
}

proptest! {
    #[test]
    fn every_record_survives(record in samples::record()) {
        let bytes = Bytes::from(record.encode());
        prop_assert_eq!(Record::is_message(&bytes), matches!(record, Record::Message(_)));
        let has_id = matches!(&record, Record::Message(message) if message.message_id.is_some());
        prop_assert_eq!(Record::has_message_id(&bytes), has_id);
        prop_assert_eq!(Record::decode(bytes).unwrap(), record);
    }

    #[test]
    fn whatever_comes_is_a_record_or_an_error(record in samples::record(), damage in samples::damage()) {
        let damaged = Bytes::from(damage.apply(record.encode()));
        if let Ok(record) = Record::decode(damaged) {
            prop_assert_eq!(Record::decode(Bytes::from(record.encode())).unwrap(), record);
        }
    }
}

#[test]
fn a_change_of_presence_comes_back() {
    let change =
        Record::Presence(PresenceRecord { agent: AgentId::new("node-7").unwrap(), active: true, at: 3 });
    let bytes = change.encode();
    assert!(!Record::is_message(&bytes) && !Record::is_message(b""));
    assert_eq!(bytes, b"\x02\x01\x03\0\0\0\0\0\0\0node-7");
    assert_eq!(Record::decode(bytes.into()).unwrap(), change);
}
