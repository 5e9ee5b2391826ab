//! What receivers know of their config, and that they know nothing else of the host.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wharf_host::{FolderGrant, ReceiverOptions};

use crate::fixtures::{Fixture, Log, batch, options, order, printed};

fn with_settings(pairs: &[(&str, &str)]) -> ReceiverOptions {
    let settings = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    ReceiverOptions { settings, ..options("tools") }
}

#[tokio::test]
async fn settings_are_in_the_store_and_in_the_environment() {
    let log = Log::start();
    let fixture = Fixture::new();
    let pairs = [("limit.high", "90"), ("name", "a b"), ("text", "a=b"), ("name", "later")];
    let receiver = fixture.host.load(with_settings(&pairs)).await.unwrap();
    let mut instance = receiver.instantiate().await.unwrap();
    let bodies = [
        r#"{"do":"settings"}"#,
        r#"{"do":"setting","key":"limit.high"}"#,
        r#"{"do":"setting","key":"limit"}"#,
    ];
    instance.handle(&batch(&bodies)).await.unwrap();
    let all = r#"[("limit.high", "90"), ("name", "later"), ("text", "a=b")]"#;
    let expected = [
        format!("store {all}"),
        format!("environment {all}"),
        r#"setting Some("90")"#.into(),
        "setting None".into(),
    ];
    assert_eq!(printed(&log), expected);
}

#[tokio::test]
async fn what_can_be_no_variable_is_only_in_the_store() {
    let log = Log::start();
    let fixture = Fixture::new();
    let pairs = [("", "nameless"), ("a=b", "1"), ("c", "2\u{0}3"), ("d\u{0}", "4"), ("e", "")];
    let receiver = fixture.host.load(with_settings(&pairs)).await.unwrap();
    receiver.instantiate().await.unwrap().handle(&order("settings")).await.unwrap();
    let expected = [
        r#"store [("", "nameless"), ("a=b", "1"), ("c", "2\03"), ("d\0", "4"), ("e", "")]"#,
        r#"environment [("e", "")]"#,
    ];
    assert_eq!(printed(&log), expected);
}

#[tokio::test]
async fn nothing_of_the_host_leaks() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut options = with_settings(&[("color", "red")]);
    options.grants.files =
        vec![FolderGrant { host: fixture.dir.path().into(), guest: "/in".into(), write: false }];
    let receiver = fixture.host.load(options).await.unwrap();
    let started = Instant::now();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for _ in 0..2 {
        receiver.instantiate().await.unwrap().handle(&order("look")).await.unwrap();
    }
    let lines = printed(&log);
    let (first, second) = lines.split_at(lines.len() / 2);
    let known =
        [r#"variables [("color", "red")]"#, "arguments []", "current folder None", r#"folders ["/in"]"#];
    assert_eq!((&first[..4], &second[..4]), (&known.map(String::from)[..], &known.map(String::from)[..]));

    let number = |line: &String| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    // A clock that ran on from instance to instance would tell for how long the server or its machine has been up.
    assert!(u128::from(number(&first[4])) <= started.elapsed().as_nanos(), "{}", first[4]);
    assert!(u128::from(number(&second[4])) <= started.elapsed().as_nanos(), "{}", second[4]);
    assert!((time..=time + started.elapsed().as_secs() + 1).contains(&number(&first[5])), "{}", first[5]);
    // No two instances get the same random numbers, whichever way they ask.
    assert!(first[6].starts_with("random [") && first[6] != second[6], "{lines:?}");
    assert!(first[7].starts_with("insecure [") && first[7] != second[7], "{lines:?}");
    assert_eq!(first.len(), 8);
}
