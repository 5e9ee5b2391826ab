//! The promises of `Live` to listeners: what they get first, what is forgotten, and when they are dropped.

use super::*;

fn live(max_keys: usize, max_bytes: usize) -> Live {
    Live::new(LiveOptions { max_keys, max_bytes })
}

fn publish(live: &Live, key: &str, payload: &str) {
    live.publish(Some(key), payload.into()).unwrap();
}

/// What a listener that comes now gets first.
fn kept(live: &Live) -> Vec<String> {
    live.subscribe().kept.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_listener_gets_kept_payloads_and_then_new_ones() {
    let live = live(10, 1000);
    publish(&live, "a", "a1");
    publish(&live, "b", "b1");
    live.publish(None, "nobody heard this".into()).unwrap();
    publish(&live, "a", "a2");
    let mut listener = live.subscribe();
    publish(&live, "b", "b2");
    live.publish(None, "new".into()).unwrap();
    for expected in ["b1", "a2", "b2", "new"] {
        assert_eq!(listener.next().await.as_deref(), Some(expected));
    }
    drop(live);
    assert_eq!(listener.next().await, None);
}

#[test]
fn what_was_published_longest_ago_is_forgotten_at_the_bounds() {
    let few = live(2, 1000);
    for (key, payload) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1")] {
        publish(&few, key, payload);
    }
    assert_eq!(kept(&few), ["a2", "c1"]);

    let small = live(10, 9);
    for (key, payload) in [("a", "a1"), ("b", "b1"), ("c", "c1"), ("d", "d12")] {
        publish(&small, key, payload);
    }
    assert_eq!(kept(&small), ["c1", "d12"]);
    publish(&small, "e", "larger than all");
    assert!(kept(&small).is_empty());
    publish(&small, "f", "f1");
    assert_eq!(kept(&small), ["f1"], "the sum is right after all that");
}

#[test]
fn an_empty_payload_forgets_and_is_not_sent() {
    let live = live(10, 1000);
    publish(&live, "a", "a1");
    let mut listener = live.subscribe();
    publish(&live, "a", "");
    publish(&live, "unknown", "");
    live.publish(None, String::new()).unwrap();
    assert!(kept(&live).is_empty());
    assert_eq!(live.hub().kept.bytes, 0);
    assert_eq!(listener.kept.pop_front().as_deref(), Some("a1"));
    assert!(listener.receiver.try_recv().is_err());
}

#[test]
fn keys_and_payloads_have_a_longest() {
    let live = live(10, 1 << 20);
    assert!(live.publish(Some(&"k".repeat(MAX_KEY)), "p".repeat(MAX_PAYLOAD)).is_ok());
    assert_eq!(live.publish(Some(&"k".repeat(MAX_KEY + 1)), "p".into()), Err(PublishError::Key(MAX_KEY + 1)));
    assert_eq!(live.publish(None, "p".repeat(MAX_PAYLOAD + 1)), Err(PublishError::Payload(MAX_PAYLOAD + 1)));
    assert_eq!(kept(&live).len(), 1);
}

#[tokio::test]
async fn a_slow_listener_is_dropped_and_the_others_are_not() {
    let live = live(10, 1000);
    let mut slow = live.subscribe();
    let mut quick = live.subscribe();
    for number in 0..=MAX_BEHIND {
        live.publish(None, number.to_string()).unwrap();
        assert_eq!(quick.next().await.as_deref(), Some(number.to_string().as_str()));
    }
    assert_eq!(slow.next().await, None);
}
