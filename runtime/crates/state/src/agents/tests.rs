use super::*;

fn agent(id: &str, active: bool, topics: &[(&str, Option<bool>)]) -> KnownAgent {
    let topics = topics.iter().map(|&(name, told)| UsedTopic { name: name.to_owned(), told });
    KnownAgent { id: id.to_owned(), active, topics: topics.collect() }
}

#[test]
fn an_agent_is_laid_out_as_documented() {
    let agent = agent("node-7", true, &[("blocks", Some(true)), ("logs", Some(false)), ("m", None)]);
    let value = encode_agent(&agent).unwrap();
    assert_eq!(value, b"\x01\x01\x01\x06blocks\x00\x04logs\x02\x01m");
    assert_eq!(decode_agent(b"node-7", &value).unwrap(), agent);
}

#[test]
fn damaged_entries_are_named() {
    for (value, problem) in [
        (&b""[..], "it is empty"),
        (b"\x02", "its format is 2, this version knows format 1"),
        (b"\x01", "it ends early"),
        (b"\x01\x02", "it is marked 2, expected 0 or 1"),
        (b"\x01\x01\x00", "it ends within a topic"),
        (b"\x01\x01\x00\x02a", "it ends within a topic"),
        (b"\x01\x01\x03\x01a", "a topic is marked 3, expected 0, 1 or 2"),
        (b"\x01\x01\x00\x01\xff", "the name of a topic is not text"),
    ] {
        assert_eq!(decode_agent(b"a", value).unwrap_err(), problem);
    }
    assert_eq!(decode_agent(b"\xff", b"\x01\x01").unwrap_err(), "its id is not text");
    assert_eq!(decode_reflected(b"t", b"\x01\x00").unwrap_err(), "its offset has 1 bytes, expected 8");
    assert_eq!(decode_reflected(b"t", b"").unwrap_err(), "it is empty");
}

#[test]
fn what_was_saved_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let (a, b) = (agent("a", true, &[("t", Some(true))]), agent("b", false, &[]));

    let state = State::open(&dir).unwrap();
    assert_eq!(state.agents().unwrap(), KnownAgents::default());
    state.save_agents(&[a.clone(), b.clone()], &[], &[("t".to_owned(), 7)]).unwrap();
    drop(state);

    let state = State::open(&dir).unwrap();
    let known = state.agents().unwrap();
    assert_eq!((known.agents, known.reflected), (vec![a, b], vec![("t".to_owned(), 7)]));
    let a = agent("a", false, &[("t", None), ("u", Some(true))]);
    state.save_agents(std::slice::from_ref(&a), &["b".to_owned()], &[("t".to_owned(), 9)]).unwrap();
    let known = state.agents().unwrap();
    assert_eq!((known.agents, known.reflected), (vec![a], vec![("t".to_owned(), 9)]));
}

#[test]
fn one_damaged_entry_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    let whole = agent("whole", true, &[]);
    state.save_agents(std::slice::from_ref(&whole), &[], &[("t".to_owned(), 7)]).unwrap();
    {
        let guard = state.lock();
        let open = guard.as_ref().unwrap();
        open.agents.insert("bad", b"\x09").unwrap();
        open.presence.insert("u", b"").unwrap();
    }
    let known = state.agents().unwrap();
    assert_eq!((known.agents, known.reflected), (vec![whole], vec![("t".to_owned(), 7)]));
    assert_eq!(
        known.damaged,
        [r#"agent "bad": its format is 9, this version knows format 1"#, r#"topic "u": it is empty"#]
    );
}

#[test]
fn what_can_be_no_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state")).unwrap();
    let long = "n".repeat(MAX_NAME + 1);
    for id in ["", long.as_str()] {
        let refused = state.save_agents(&[agent(id, true, &[])], &[], &[]).unwrap_err();
        assert!(matches!(refused, StateError::Name { what: "agent", .. }), "{refused}");
        let refused = state.save_agents(&[agent("a", true, &[(id, None)])], &[], &[]).unwrap_err();
        assert!(matches!(refused, StateError::Name { what: "topic", .. }), "{refused}");
    }
    assert_eq!(state.agents().unwrap(), KnownAgents::default());
}
