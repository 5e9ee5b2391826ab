//! What people and programs are told of runs that went well and badly.

use super::{
    super::latencies::{Recorders, empty},
    *,
};

fn setup() -> Setup {
    Setup {
        url: "ws://127.0.0.1:4000/agent".to_owned(),
        data_type: "system_metrics".to_owned(),
        encoding: Encoding::Msgpack,
        connections: 8,
        agents: 256,
        batch: 64,
        size_bytes: 300,
        window: 64,
        rate: None,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_millis(2_500),
    }
}

fn span() -> Span {
    let counted_from = Instant::now();
    let until = counted_from + Duration::from_millis(2_500);
    Span { counted_from, until, interrupted: false, cpu: Duration::from_millis(612) }
}

fn latencies() -> Latencies {
    let mut latencies = empty().unwrap();
    for microseconds in 1..=10_000 {
        latencies.record(microseconds).unwrap();
    }
    latencies
}

fn tally(span: Span) -> Tally {
    let recorder = Recorders::new(1).unwrap().each().next().unwrap().clone();
    let mut tally = Tally::new(span.counted_from, 64, recorder, None);
    (tally.sent, tally.accepted) = (1_000_000, 1_000_000);
    tally.last_answer = Some(span.until);
    tally
}

#[test]
fn people_get_a_table() {
    let span = span();
    let (report, failure) = Report::new(setup(), span, vec![tally(span)], &latencies());
    assert!(failure.is_none());
    assert_eq!(report.shortcomings(), None);
    insta::assert_snapshot!(report, @"
        ws://127.0.0.1:4000/agent, system_metrics as msgpack
        8 connections with 64 frames under way at most, 256 agents, batches of 64, bodies of 300 bytes
        counted for 2.500 s after 1 s of warm-up

        messages    total  a second
        accepted  1000000    400000

        ms until acknowledged        p50   p90   p99  p99.9    max
        from when a frame was sent  5.00  9.01  9.90   9.99  10.01

        120.00 MB/s of bodies; this program took 0.61 s of CPU time, 24 % of a processor
    ");
}

#[test]
fn what_went_wrong_stands_in_the_table_and_in_words() {
    let span = Span { interrupted: true, ..span() };
    let mut tally = tally(span);
    tally.accepted = 999_825;
    tally.refused = BTreeMap::from([("overloaded", 64), ("unknown_type", 1)]);
    (tally.unanswered, tally.unsent, tally.late) = (110, 250_000, 40_000);
    tally.failure = Some(ClientError::Unasked);
    let setup = Setup { rate: Some(500_000), ..setup() };
    let (report, failure) = Report::new(setup, span, vec![tally], &latencies());
    assert!(matches!(failure, Some(ClientError::Unasked)));
    assert_eq!(report.shortcomings().unwrap(), "65 refused, 110 not answered, 1 connections broke");
    insta::assert_snapshot!(report, @"
        ws://127.0.0.1:4000/agent, system_metrics as msgpack
        8 connections with 64 frames under way at most, 256 agents, batches of 64, bodies of 300 bytes
        counted for 2.500 s after 1 s of warm-up, stopped early

        messages                 total  a second
        offered                1250000    500000
        accepted                999825    399930
        refused: overloaded         64
        refused: unknown_type        1
        not answered               110
        due and not sent        250000

        ms until acknowledged       p50   p90   p99  p99.9    max
        from when a frame was due  5.00  9.01  9.90   9.99  10.01

        119.98 MB/s of bodies; this program took 0.61 s of CPU time, 24 % of a processor
        1 of 8 connections broke
        the client was the limit: 4 % of the messages were sent more than 1 ms later than the server would have taken them, so that these latencies are partly its own; run it on a machine with more processors to spare, or lower --rate
    ");
}

#[test]
fn a_server_that_takes_less_than_it_is_offered_is_told_from_a_client_that_is_late() {
    let span = span();
    let setup = Setup { rate: Some(500_000), ..setup() };
    for (unsent, late, server, client) in
        [(0, 10_000, false, false), (20_000, 0, true, false), (20_000, 10_001, false, true)]
    {
        let mut tally = tally(span);
        (tally.unsent, tally.late) = (unsent, late);
        let (report, _) = Report::new(setup.clone(), span, vec![tally], &latencies());
        let text = report.to_string();
        assert_eq!(text.contains("the server took less"), server, "{text}");
        assert_eq!(text.contains("the client was the limit"), client, "{text}");
        assert_eq!(report.client_limited, client);
        assert_eq!(report.shortcomings(), None);
    }
}

#[test]
fn programs_get_json() {
    let span = span();
    let mut tally = tally(span);
    tally.refused = BTreeMap::from([("overloaded", 64)]);
    let (report, _) = Report::new(setup(), span, vec![tally], &latencies());
    insta::assert_snapshot!(serde_json::to_string(&report).unwrap(), @r#"{"url":"ws://127.0.0.1:4000/agent","type":"system_metrics","format":"msgpack","connections":8,"agents":256,"batch":64,"size_bytes":300,"window":64,"rate":null,"warm_up_seconds":1.0,"duration_seconds":2.5,"interrupted":false,"seconds":2.5,"offered":null,"sent":1000000,"accepted":1000000,"refused":{"overloaded":64},"unanswered":0,"unsent":0,"disconnects":0,"messages_per_second":400000.0,"megabytes_per_second":120.0,"latency_ms":{"p50":5.003,"p90":9.007,"p99":9.903,"p99_9":9.991,"max":10.007},"sent_late":0,"client_limited":false,"client_cpu_seconds":0.612}"#);
}

#[test]
fn connections_add_up() {
    let span = span();
    let later = |milliseconds, rate| {
        let mut tally = tally(span);
        tally.accepted = 100;
        tally.refused = BTreeMap::from([("overloaded", 2)]);
        tally.last_answer = Some(span.counted_from + Duration::from_millis(milliseconds));
        let setup = Setup { rate, ..setup() };
        let mut second = self::tally(span);
        (second.accepted, second.last_answer) = (300, None);
        Report::new(setup, span, vec![tally, second], &latencies()).0
    };
    // Without a rate, the last answer ends it, early or late; with one, the schedule does, unless an answer comes later.
    for (milliseconds, rate, seconds) in
        [(2_000, None, 2.0), (4_000, None, 4.0), (2_000, Some(1), 2.5), (4_000, Some(1), 4.0)]
    {
        let report = later(milliseconds, rate);
        assert_eq!(report.seconds, seconds);
        assert_eq!(report.messages_per_second, 400.0 / seconds);
        assert_eq!(report.refused["overloaded"], 2);
    }
}
