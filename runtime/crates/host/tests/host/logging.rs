//! Lines that receivers log with a level: what they look like, and that they have the bounds of printed ones.

use std::time::Duration;

use wharf_host::{Fault, Receiver};

use crate::fixtures::{Fixture, Log, batch, options};

fn message(level: &str, message: &str, times: u32) -> String {
    format!(r#"{{"do":"log","level":"{level}","context":"db\n1","message":"{message}","times":{times}}}"#)
}

async fn limited(fixture: &Fixture, lines_per_second: u32) -> Receiver {
    let mut options = options("tools");
    options.log_lines_per_second = lines_per_second;
    fixture.host.load(options).await.unwrap()
}

#[tokio::test]
async fn each_level_is_one_of_the_log_with_the_context_beside_it() {
    let log = Log::start();
    let fixture = Fixture::new();
    let receiver = fixture.load("tools").await;
    let bodies =
        ["trace", "debug", "info", "warn", "error", "critical"].map(|level| message(level, level, 1));
    let bodies = bodies.each_ref().map(String::as_str);
    receiver.instantiate().await.unwrap().handle(&batch(&bodies)).await.unwrap();
    let line = |level, text| format!(r"{level} guest: {text} receiver.name=tools context=db\n1");
    // The log of the tests shows nothing below info.
    let shown = [("INFO", "info"), ("WARN", "warn"), ("ERROR", "error"), ("ERROR", "critical")];
    assert_eq!(log.guest_lines(), shown.map(|(level, text)| line(level, text)));
    assert_eq!(
        (receiver.log_lines(), receiver.log_lines_dropped()),
        (4, 0),
        "what is not shown is not counted"
    );
}

#[tokio::test]
async fn a_message_is_one_line_of_bounded_length() {
    let log = Log::start();
    let fixture = Fixture::new();
    let mut instance = fixture.instance("tools").await;
    let long = message("info", &"x".repeat(100_000), 1);
    instance.handle(&batch(&[&message("info", r"two\nlines \u001b[31m", 1), &long])).await.unwrap();
    let lines = log.guest_lines();
    assert!(lines[0].starts_with(r"INFO guest: two\nlines \u{1b}[31m receiver.name"), "{lines:?}");
    assert!(lines[1].contains("xxx… receiver.name=") && lines[1].len() < 9_000, "{lines:?}");
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn messages_and_printed_lines_share_one_rate() {
    let log = Log::start();
    let fixture = Fixture::new();
    let receiver = limited(&fixture, 5).await;
    let bodies =
        [message("debug", "not shown", 100), message("warn", "flood", 500), r#"{"do":"settings"}"#.into()];
    let bodies = bodies.each_ref().map(String::as_str);
    receiver.instantiate().await.unwrap().handle(&batch(&bodies)).await.unwrap();
    let (shown, dropped) = (receiver.log_lines(), receiver.log_lines_dropped());
    assert_eq!(shown + dropped, 502);
    // The seconds of the log are not those of the call, which may touch two of them or more on a busy machine.
    assert!((5..=25).contains(&shown), "{shown}");
    assert!(log.guest_lines().iter().filter(|line| line.contains("flood")).count() >= 5);
}

#[tokio::test]
async fn what_was_dropped_is_told_although_the_receiver_falls_silent() {
    let log = Log::start();
    let fixture = Fixture::new();
    let receiver = limited(&fixture, 5).await;
    let mut instance = receiver.instantiate().await.unwrap();
    instance.handle(&batch(&[&message("info", "flood", 500)])).await.unwrap();
    let told = async {
        while !log.guest_lines().iter().any(|line| line.contains("lines dropped")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .expect("dropped lines are told within a second or so");
}

#[tokio::test]
async fn errors_are_among_the_last_lines_of_a_call_that_fails() {
    let fixture = Fixture::new();
    let mut instance = fixture.instance("tools").await;
    let bodies =
        [message("critical", "out of ink", 1), message("info", "not this", 1), r#"{"do":"trap"}"#.into()];
    let bodies = bodies.each_ref().map(String::as_str);
    let fault: Fault = instance.handle(&batch(&bodies)).await.unwrap_err();
    let stderr = &fault.evidence().unwrap().stderr;
    assert_eq!(stderr[0], "out of ink");
    assert!(stderr.iter().any(|line| line.contains("told to trap")), "{stderr:?}");
    assert!(!stderr.iter().any(|line| line.contains("not this")), "{stderr:?}");
}
