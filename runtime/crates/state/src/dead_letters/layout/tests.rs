use super::*;

fn death() -> Death {
    Death {
        offset: 0x0102,
        lane: Lane::new(63).unwrap(),
        agent: "a".to_owned(),
        received_at: 3,
        attempts: 5,
        kind: DeathKind::Faults,
        reason: "why".to_owned(),
        trap: Some("deadline".to_owned()),
        backtrace: None,
        stderr: "é".to_owned(),
        digest: "d1".to_owned(),
        died_at: 4,
    }
}

#[test]
fn keys_are_laid_out_as_documented() {
    assert_eq!(usage_key("alarms"), b"ualarms");
    assert_eq!(parse_usage_key(b"ualarms").unwrap(), "alarms");
    assert_eq!(head_key("alarms", 0x0102), b"halarms\0\0\0\0\0\0\0\x01\x02");
    assert_eq!(message_key("alarms", 1), b"malarms\0\0\0\0\0\0\0\0\x01");
    assert_eq!(parse_head_key("alarms", &head_key("alarms", 7)), Some(7));
}

#[test]
fn damaged_keys_are_none() {
    for key in [&b""[..], b"u", b"x", b"u\xff", b"ua\0b"] {
        assert!(parse_usage_key(key).is_err(), "{key:?}");
    }
    for key in
        [&b"hr\0\0\0\0\0\0\0\x01"[..], b"hr\0\0\0\0\0\0\0\0\0\x01", &head_key("r", 0), &head_key("s", 1)]
    {
        assert_eq!(parse_head_key("r", key), None, "{key:?}");
    }
    assert_eq!(parse_head_key("r", &head_key("r", MAX_ID)), Some(MAX_ID));
    assert_eq!(parse_head_key("r", &head_key("r", MAX_ID + 1)), None);
}

#[test]
fn values_are_laid_out_as_documented() {
    let usage = Usage { last_id: 0x0102, count: 2, bytes: 3 };
    assert_eq!(usage.encode(), b"\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03");
    assert_eq!(Usage::decode(&usage.encode()).unwrap(), usage);
    let head = Head { topic: "t".to_owned(), death: death(), message_bytes: 6 };
    let expected = [
        &b"\x01\x01\x3f\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x05\0\0\0\x06"[..],
        b"\0\0\0\x01t\0\0\0\x01a\0\0\0\x02d1\0\0\0\x03why\0\0\0\x08deadline\0\0\0\0\0\0\0\x02\xc3\xa9",
    ];
    assert_eq!(head.encode(), expected.concat());
    assert_eq!(Head::decode(&head.encode()).unwrap(), head);
    for kind in DeathKind::ALL {
        let head = Head { death: Death { kind, ..death() }, ..head.clone() };
        assert_eq!(Head::decode(&head.encode()).unwrap(), head);
    }
    assert_eq!(letter_bytes(10, 5), 15 + LETTER_OVERHEAD);
}

#[test]
fn long_texts_are_cut_between_characters() {
    let long = "é".repeat(MAX_BACKTRACE);
    let first = |bytes| "é".repeat(bytes / 2);
    let death = Death {
        reason: format!("x{long}"),
        backtrace: Some(long.clone()),
        stderr: format!("{long}x"),
        ..death()
    };
    let head = Head { topic: "t".to_owned(), death, message_bytes: 0 };
    let Death { reason, backtrace, stderr, .. } = Head::decode(&head.encode()).unwrap().death;
    assert_eq!(reason, format!("x{}", first(MAX_REASON - 2)));
    assert_eq!(backtrace.unwrap(), first(MAX_BACKTRACE));
    assert_eq!(stderr, format!("{}x", first(MAX_STDERR - 2)), "of what was written, the end is kept");
}

#[test]
fn damaged_values_are_named() {
    let whole = Head { topic: "t".to_owned(), death: death(), message_bytes: 6 }.encode();
    let with = |place: usize, byte| {
        let mut value = whole.clone();
        value[place] = byte;
        value
    };
    for (value, problem) in [
        (vec![], "it is empty"),
        (with(0, 9), "its format is 9, this version knows format 1"),
        (whole[..2].to_vec(), "it ends early"),
        (with(1, 4), "its kind is 4, expected 0 to 3"),
        (with(2, 64), "there is no lane 64"),
        (whole[..20].to_vec(), "it ends early"),
        (whole[..34].to_vec(), "it ends early"),
        (with(35, 0xff), "its topic ends early or is not text"),
        (with(39, 0xff), "its topic ends early or is not text"),
        (whole[..whole.len() - 1].to_vec(), "its stderr ends early or is not text"),
        ([&whole[..], &[0]].concat(), "it has 1 bytes too many"),
    ] {
        assert_eq!(Head::decode(&value).unwrap_err(), problem);
    }
    let usage = Usage { last_id: 1, count: 1, bytes: 3 };
    for (value, problem) in [
        (vec![], "it is empty"),
        (vec![2], "its format is 2, this version knows format 1"),
        (usage.encode()[..24].to_vec(), "it has 24 bytes, expected 25"),
        (Usage { count: 2, ..usage }.encode(), "it has 2 letters, and the id 1 as the highest"),
        (
            Usage { last_id: MAX_ID + 1, ..usage }.encode(),
            "it has 1 letters, and the id 9223372036854775808 as the highest",
        ),
    ] {
        assert_eq!(Usage::decode(&value).unwrap_err(), problem);
    }
}
