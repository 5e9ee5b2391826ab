use proptest::prelude::*;

use super::*;
use crate::encoding::DEEPEST;
use crate::refusal::Code;
use crate::samples;

fn json(text: &str) -> Result<Body, Refusal> {
    Body::new(Encoding::Json, Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
}

fn msgpack(bytes: &[u8]) -> Result<Body, Refusal> {
    Body::new(Encoding::Msgpack, Bytes::copy_from_slice(bytes), &Limits::default())
}

#[track_caller]
fn refused(body: Result<Body, Refusal>, why: &str) {
    let refusal = body.unwrap_err();
    assert_eq!(refusal.code, Code::InvalidField);
    assert!(refusal.message.starts_with("field `data` is invalid: found "), "{refusal}");
    assert!(refusal.message.contains(why), "{refusal}");
}

/// The JSON of `{"v": value}`, without what is around the value.
fn mapped(value: &[u8]) -> String {
    let body = msgpack(&[b"\x81\xa1v", value].concat()).unwrap();
    body.to_json().strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned()
}

#[test]
fn bytes_stay_as_they_came() {
    let text = r#" {"b": 1.0, "a": [ "é\u00e9", {} ], "b": 2} "#;
    let body = json(text).unwrap();
    assert_eq!(body.bytes(), text.trim());
    assert_eq!(body.to_json(), text.trim());
    let frame = Bytes::from_static(b"{\"a\":1}");
    let body = Body::new(Encoding::Json, frame.clone(), &Limits::default()).unwrap();
    assert_eq!(body.bytes().as_ptr(), frame.as_ptr());
}

#[test]
fn only_an_object_is_a_body() {
    refused(json("[]"), "found a list, expected an object");
    refused(json("null"), "found null, expected an object");
    refused(json("\"text\""), "found the text `text`");
    refused(json("7"), "found the number `7`");
    refused(json("{} {}"), "no JSON");
    refused(json(""), "no JSON");
    refused(json("{\"a\":01}"), "no JSON");
    refused(
        Body::new(Encoding::Json, Bytes::from_static(b"{\"a\":\"\xff\"}"), &Limits::default()),
        "not UTF-8",
    );
    refused(msgpack(b"\x90"), "found a list, expected an object");
    refused(msgpack(b"\xc4\x01a"), "found binary data");
    refused(msgpack(b"\x80\x80"), "no MessagePack: found bytes after the value");
    refused(msgpack(b"\x81\xa1a"), "no MessagePack: the bytes end inside a value");
    refused(msgpack(b"\x81\xa1a\xc1"), "no MessagePack: found the byte 0xc1");
    refused(msgpack(b""), "no MessagePack");
}

fn nested_json(depth: usize) -> String {
    // The text in it shows that brackets in texts do not count.
    format!("{}{{\"b\":\"[[[[{{{{\\\"[\"}}{}", "{\"a\":[".repeat(depth / 2), "]}".repeat(depth / 2))
}

fn nested_msgpack(depth: usize) -> Vec<u8> {
    [b"\x81\xa1a".repeat(depth - 1), b"\x80".to_vec()].concat()
}

#[test]
fn depth_counts_the_object_itself() {
    let at = |max_depth| Limits { max_depth, ..Limits::default() };
    for depth in [1, 3, 63, 65, 127] {
        for (encoding, bytes) in [
            (Encoding::Json, Bytes::from(nested_json(depth))),
            (Encoding::Msgpack, Bytes::from(nested_msgpack(depth))),
        ] {
            assert!(Body::new(encoding, bytes.clone(), &at(depth)).is_ok(), "{encoding:?} {depth}");
            let deeper = Body::new(encoding, bytes, &at(depth - 1));
            refused(deeper, &format!("nesting deeper than {} levels", depth - 1));
        }
    }
}

#[test]
fn no_limit_allows_more_than_guests_can_read() {
    let unlimited = Limits { max_depth: usize::MAX, ..Limits::default() };
    for (encoding, deepest, deeper) in [
        (Encoding::Json, nested_json(DEEPEST).into_bytes(), nested_json(DEEPEST + 2).into_bytes()),
        (Encoding::Msgpack, nested_msgpack(DEEPEST), nested_msgpack(DEEPEST + 1)),
    ] {
        let body = Body::new(encoding, Bytes::from(deepest), &unlimited).unwrap();
        serde_json::from_str::<serde_json::Value>(&body.to_json()).unwrap();
        refused(Body::new(encoding, Bytes::from(deeper), &unlimited), "nesting deeper than 127 levels");
    }
}

#[test]
fn an_extension_is_as_deep_as_the_object_that_it_becomes() {
    let limits = Limits { max_depth: 1, ..Limits::default() };
    let body = Body::new(Encoding::Msgpack, Bytes::from_static(b"\x81\xa1a\xd4\x05x"), &limits);
    refused(body, "nesting deeper than 1 levels");
}

#[test]
fn half_of_a_surrogate_pair_is_no_text() {
    for whole in
        [r#"{"a":"\ud83d\ude00"}"#, r#"{"\ud83d\ude00":1}"#, r#"{"a":"\\ud800"}"#, r#"{"a":"\\\\ud800\n"}"#]
    {
        let body = json(whole).unwrap();
        serde_json::from_str::<serde_json::Value>(&body.to_json()).unwrap();
    }
    for half in [
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\uDFFF"}"#,
        r#"{"\ud800":1}"#,
        r#"{"a":"\ud800x"}"#,
        r#"{"a":"\ud800\n"}"#,
        r#"{"a":"\ud800\ud800"}"#,
        r#"{"a":"\ud83d\ude00\ude00"}"#,
        r#"{"a":["b",{"c":"\\\ud800"}]}"#,
    ] {
        assert!(serde_json::from_str::<serde_json::Value>(half).is_err());
        refused(json(half), "half of a surrogate pair");
    }
}

#[test]
fn msgpack_text_is_utf8_wherever_it_stands() {
    refused(msgpack(b"\x81\xa1a\xa1\xff"), "not UTF-8");
    refused(msgpack(b"\x81\xa1\xff\x01"), "not UTF-8");
    refused(msgpack(b"\x81\x91\xa1\xff\x01"), "not UTF-8");
    refused(msgpack(b"\x81\xa1a\x91\xa3\xed\xa0\x80"), "not UTF-8");
}

#[test]
fn numbers_are_exact_and_read_well() {
    assert_eq!(mapped(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "18446744073709551615");
    assert_eq!(mapped(b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), "-9223372036854775808");
    assert_eq!(mapped(b"\xd0\xff"), "-1");
    assert_eq!(mapped(&[b"\xca".as_slice(), &0.1_f32.to_be_bytes()].concat()), "0.1");
    assert_eq!(mapped(&[b"\xcb".as_slice(), &0.1_f64.to_be_bytes()].concat()), "0.1");
    assert_eq!(mapped(&[b"\xcb".as_slice(), &100_f64.to_be_bytes()].concat()), "100.0");
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(mapped(&[b"\xcb".as_slice(), &number.to_be_bytes()].concat()), "null");
    }
    assert_eq!(mapped(&[b"\xca".as_slice(), &f32::NAN.to_be_bytes()].concat()), "null");
}

#[test]
fn binary_and_extensions_become_base64() {
    assert_eq!(mapped(b"\xc4\x04\xfb\xff\xfe\x00"), r#""+//+AA==""#);
    assert_eq!(mapped(b"\xd4\x05\xff"), r#"{"$ext":5,"data":"/w=="}"#);
    assert_eq!(mapped(b"\xc7\x00\xfe"), r#"{"$ext":-2,"data":""}"#);
}

#[test]
fn timestamps_are_told_in_seconds() {
    assert_eq!(mapped(b"\xd6\xff\x5b\x31\xf2\x80"), r#"{"$ext":-1,"seconds":1530000000,"nanoseconds":0}"#);
    // 1 nanosecond before the second 1
    assert_eq!(
        mapped(b"\xd7\xff\xee\x6b\x27\xfc\x00\x00\x00\x00"),
        r#"{"$ext":-1,"seconds":0,"nanoseconds":999999999}"#
    );
    assert_eq!(
        mapped(b"\xc7\x0c\xff\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff\xff\xff"),
        r#"{"$ext":-1,"seconds":-1,"nanoseconds":7}"#
    );
    // No second has so many nanoseconds, and no timestamp three bytes: then it is an extension like any other.
    assert_eq!(mapped(b"\xd7\xff\xee\x6b\x28\x00\x00\x00\x00\x00"), r#"{"$ext":-1,"data":"7msoAAAAAAA="}"#);
    assert_eq!(mapped(b"\xc7\x03\xff\x01\x02\x03"), r#"{"$ext":-1,"data":"AQID"}"#);
}

#[test]
fn keys_that_are_no_text_become_the_text_of_their_json() {
    let body =
        msgpack(b"\x87\x01\x00\xc0\x00\xc3\x00\xff\x00\xc4\x01a\x00\x92\x01\xa1x\x00\x80\x00").unwrap();
    assert_eq!(body.to_json(), r#"{"1":0,"null":0,"true":0,"-1":0,"YQ==":0,"[1,\"x\"]":0,"{}":0}"#);
}

#[test]
fn keys_that_read_the_same_are_refused() {
    refused(msgpack(b"\x82\xa1a\x01\xa1a\x02"), "two keys `a`");
    refused(msgpack(b"\x82\x01\x01\xa11\x02"), "two keys `1`");
    refused(msgpack(b"\x82\x01\x01\xcc\x01\x02"), "two keys `1`");
    refused(msgpack(b"\x82\xa1a\x01\xd9\x01a\x02"), "two keys `a`");
    refused(msgpack(b"\x81\xa1a\x91\x82\xc0\x00\xa4null\x00"), "two keys `null`");
    refused(msgpack(b"\x81\x81\xa1a\x82\xc0\x00\xc0\x00\x00"), "two keys `null`");
    // The same key in different maps is no collision, also not in a map within it.
    assert!(msgpack(b"\x82\xa1a\x81\xa1a\x81\xa1b\x00\xa1b\x81\xa1b\x00").is_ok());
    let many = |last: u8| {
        let keys = (0..200_u8).chain([last]).flat_map(|key| [0xcc, key, 0xc0]);
        [vec![0xde, 0x00, 201], keys.collect()].concat()
    };
    assert!(msgpack(&many(200)).is_ok());
    refused(msgpack(&many(77)), "two keys `77`");
}

#[test]
fn keys_in_keys_cannot_ask_for_gigabytes() {
    // {{{…}: 0}: 0}: each level would double the backslashes of the one inside.
    let nested = [vec![0x81; 40], b"\xa1\"".to_vec(), vec![0x00; 40]].concat();
    refused(msgpack(&nested), "as key within another such key");
    refused(msgpack(b"\x81\x81\xd4\x05x\x00\x00"), "as key within another such key");
    assert!(msgpack(b"\x81\x91\x91\x90\x00").is_ok());
}

#[test]
fn json_becomes_msgpack_for_clients() {
    let body =
        json(r#"{"a":[1,-1,1.5,"\u00e9",true,false,null,{}],"big":1e999,"a":2,"z":18446744073709551616}"#)
            .unwrap();
    let packed = body.to_msgpack();
    assert_eq!(
        packed,
        b"\x83\xa1a\x02\xa3big\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\xa1z\xcb\x43\xf0\x00\x00\x00\x00\x00\x00"
            .as_slice()
    );
    let body = json(r#"{"a":[1,-1,1.5,"\u00e9",true,false,null,{}]}"#).unwrap();
    assert_eq!(msgpack(&body.to_msgpack()).unwrap().to_json(), r#"{"a":[1,-1,1.5,"é",true,false,null,{}]}"#);
}

#[test]
fn damaged_stored_bytes_read_as_null() {
    let damaged = |encoding, bytes: &'static [u8]| Body::trusted(encoding, Bytes::from_static(bytes));
    assert_eq!(damaged(Encoding::Json, b"{\"a\":\xff}").to_json(), "null");
    assert_eq!(damaged(Encoding::Msgpack, b"\x81\xa1").to_json(), "null");
    assert_eq!(damaged(Encoding::Msgpack, b"\x80\x80").to_json(), "null");
    assert_eq!(damaged(Encoding::Msgpack, &[0x91; 1 << 20]).to_json(), "null");
    assert_eq!(damaged(Encoding::Json, b"{\"a\"").to_msgpack(), b"\xc0".as_slice());
    let deep = Bytes::from("[".repeat(1 << 19) + &"]".repeat(1 << 19));
    assert_eq!(Body::trusted(Encoding::Json, deep).to_msgpack(), b"\xc0".as_slice());
}

proptest! {
    #[test]
    fn the_mapping_over_bytes_is_the_one_over_a_tree(tree in samples::tree(), max_depth in 1_usize..8) {
        let limits = Limits { max_depth, ..Limits::default() };
        let body = Body::new(Encoding::Msgpack, Bytes::from(tree.encode()), &limits);
        prop_assert_eq!(body.is_ok(), tree.depth() <= max_depth && tree.keys_are_simple_and_distinct());
        if let Ok(body) = body {
            let json = body.to_json();
            prop_assert_eq!(&json, &tree.json());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        }
    }

    #[test]
    fn json_survives_the_way_through_msgpack(text in samples::json_object()) {
        let body = json(&text).unwrap();
        let packed = Body::new(Encoding::Msgpack, Bytes::from(body.to_msgpack().into_owned()), &Limits::default());
        let value: serde_json::Value = serde_json::from_str(&packed.unwrap().to_json()).unwrap();
        prop_assert_eq!(value, serde_json::from_str::<serde_json::Value>(&text).unwrap());
    }

    #[test]
    fn whatever_is_accepted_reads_as_json(
        body in samples::body(),
        damage in samples::damage(),
    ) {
        let bytes = damage.apply(body.bytes().to_vec());
        if let Ok(damaged) = Body::new(body.encoding(), Bytes::from(bytes.clone()), &Limits::default()) {
            serde_json::from_str::<&serde_json::value::RawValue>(&damaged.to_json()).unwrap();
        }
        // Also bytes that nobody checked come out as the other encoding.
        let unchecked = Body::trusted(body.encoding(), Bytes::from(bytes));
        match body.encoding() {
            Encoding::Json => prop_assert!(Cursor::only_value(&unchecked.to_msgpack()).is_ok()),
            Encoding::Msgpack => {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&unchecked.to_json()).is_ok());
            }
        }
    }
}
