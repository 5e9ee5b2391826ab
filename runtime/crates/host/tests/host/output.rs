//! What guests print, and what they can see of the host.

use crate::fixtures::{Fixture, Log, batch, options, order};

#[tokio::test]
async fn lines_go_to_the_log_under_the_name_of_the_receiver() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut instance = fixture.instance("recorder").await;
    instance.handle(&batch(&[r#"{"a": 1}"#, "{}"])).await.unwrap();
    instance.terminate().await.unwrap();
    let lines = log.guest_lines();
    let shown = |line: &str| format!("INFO guest: {line} receiver.name=recorder stream=stdout");
    let message = |offset, body| {
        shown(&format!(
            r#"{{"type":"system_metrics","offset":{offset},"agent":"agent-1","redelivery":"none","id":null,"body":{body}}}"#
        ))
    };
    assert_eq!(lines, [shown("init"), message(1, r#"{"a": 1}"#), message(2, "{}"), shown("terminate")]);
}

#[tokio::test]
async fn a_line_without_end_is_logged_when_the_call_ends() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    instance.handle(&batch(&[r#"{"do":"say","text":"no end \u001b[31m"}"#])).await.unwrap();
    let lines = log.guest_lines();
    assert_eq!(lines, [r"INFO guest: no end \u{1b}[31m receiver.name=puppet stream=stdout"]);
}

#[tokio::test]
async fn lines_beyond_the_rate_are_dropped_and_counted() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut options = options("puppet");
    options.log_lines_per_second = 5;
    let mut instance = fixture.host.load(options).await.unwrap().instantiate().await.unwrap();
    instance.handle(&batch(&[r#"{"do":"print","lines":1000,"length":10}"#])).await.unwrap();
    drop(instance);
    let lines = log.guest_lines();
    let (printed, said): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains("xxxxxxxxxx"));
    // The seconds of the log are not those of the call, which may touch two of them or more on a busy machine.
    assert!(printed.len() % 5 == 0 && (5..=25).contains(&printed.len()), "{lines:?}");
    let dropped: usize = said
        .iter()
        .map(|line| {
            line.split("dropped=").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap()
        })
        .sum();
    assert_eq!(printed.len() + dropped, 1000, "{lines:?}");
}

#[tokio::test]
async fn a_long_line_is_cut() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    instance.handle(&batch(&[r#"{"do":"print","lines":2,"length":100000}"#])).await.unwrap();
    let lines = log.guest_lines();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.len() < 9000 && line.contains("bytes more)")), "{lines:?}");
}

#[tokio::test]
async fn a_guest_sees_nothing_of_the_host() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut instance = fixture.instance("puppet").await;
    instance.handle(&order("look")).await.unwrap();
    let lines: Vec<_> = log
        .guest_lines()
        .iter()
        .map(|line| line.split(" receiver.name").next().unwrap().to_owned())
        .collect();
    let expected = [
        "INFO guest: variables []",
        "INFO guest: arguments []",
        // Without a folder that the host opens there is no file system at all.
        "INFO guest: folder Err(NotFound)",
        "INFO guest: file Err(NotFound)",
        "INFO guest: network false",
        "INFO guest: input Some(\"\")",
    ];
    assert_eq!(lines, expected);
}
