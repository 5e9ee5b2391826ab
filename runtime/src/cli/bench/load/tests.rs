//! A load against a server of a few lines, whose answers come when each test lets them.

use wharf_protocol::{AgentId, Call, Code, Encoding, Refusal, Request};

use super::{
    super::{
        latencies::{Latencies, Recorders},
        schedule::Rate,
    },
    *,
};
use crate::client::fake::{Fake, Served};

const HOUR: Duration = Duration::from_secs(3_600);
const MILLISECOND: Duration = Duration::from_millis(1);

struct Run {
    server: Served,
    load: tokio::task::JoinHandle<io::Result<Ended>>,
    recorders: Recorders,
    stop: CancellationToken,
}

/// Starts a load with a window of four frames.
async fn start(started: Instant, until: Instant, pace: Pace) -> Run {
    let server = Fake::start().await;
    let endpoint = server.endpoint();
    let (served, connection) = tokio::join!(server.accept(), Connection::open(&endpoint, 4));
    let ping = Request::from(Call::Ping { agent: AgentId::new("node-7").unwrap() });
    let frames = vec![Frame::encode(&[ping], Encoding::Json)];
    let recorders = Recorders::new(1).unwrap();
    let tally = Tally::new(started, 1, recorders.each().next().unwrap().clone(), None);
    let stop = CancellationToken::new();
    let load = Load::new(connection.unwrap(), frames, pace, tally).unwrap();
    let load = tokio::spawn(load.run(until, stop.clone()));
    Run { server: served, load, recorders, stop }
}

/// So many frames a second.
fn rate(started: Instant, frames: u32) -> Pace {
    let rate = Rate { messages_per_second: frames, batch: 1, connections: 1 };
    Pace::Rate(Schedule::new(started, rate, 0))
}

impl Run {
    async fn end(self) -> (Tally, Latencies) {
        let ended = self.load.await.unwrap().unwrap();
        let until = ended.until;
        (ended.settle(until), self.recorders.sum().unwrap())
    }
}

#[tokio::test]
async fn a_rate_is_kept_and_not_exceeded() {
    let started = Instant::now();
    let mut run = start(started, started + 20 * MILLISECOND, rate(started, 200)).await;
    while run.server.frame().await.is_some() {
        run.server.accept(1).await;
    }
    assert!(started.elapsed() >= 15 * MILLISECOND, "the last frame is due after 15 ms");
    let (tally, latencies) = run.end().await;
    assert_eq!((tally.sent, tally.accepted, tally.unsent, latencies.len()), (4, 4, 0, 4));
}

#[tokio::test]
async fn latencies_count_from_when_frames_were_due() {
    // The schedule began a second ago: that its frames go out only now is not to be left out.
    let now = Instant::now();
    let started = now - Duration::from_secs(1);
    let mut run = start(started, now, rate(started, 10)).await;
    while run.server.frame().await.is_some() {
        run.server.accept(1).await;
    }
    let (tally, latencies) = run.end().await;
    assert_eq!((tally.accepted, tally.unsent), (10, 0));
    assert!(latencies.max() >= 1_000_000, "{}", latencies.max());
    assert!(latencies.min() >= 99_000, "{}", latencies.min());
}

#[tokio::test]
async fn what_a_full_window_kept_back_is_told_and_has_waited() {
    let now = Instant::now();
    let started = now - HOUR;
    // The end is so long ago that nothing goes out any more, as when the window was full all the time.
    let run = start(started, now - 2 * LAST_SENDS, rate(started, 10)).await;
    let (tally, latencies) = run.end().await;
    assert_eq!((tally.sent, tally.accepted, tally.unsent), (0, 0, 35_980));
    assert!(latencies.len() == 35_980 && latencies.max() >= 3_599_000_000, "{}", latencies.max());
}

#[tokio::test]
async fn what_is_left_of_the_warm_up_is_passed_over() {
    let now = Instant::now();
    let rate = Rate { messages_per_second: 10, batch: 1, connections: 1 };
    // An hour of warm-up in which nothing went out, and then four frames.
    let pace = Pace::Rate(Schedule::new(now - HOUR, rate, 0));
    let mut run = start(now, now + 400 * MILLISECOND, pace).await;
    let mut frames = 0;
    while run.server.frame().await.is_some() {
        run.server.accept(1).await;
        frames += 1;
    }
    let (tally, latencies) = run.end().await;
    assert_eq!((frames, tally.accepted, tally.unsent), (4, 4, 0));
    assert!(latencies.max() < 3_000_000_000, "{}", latencies.max());
}

#[tokio::test]
async fn without_a_rate_each_answer_lets_the_next_frame_go() {
    let started = Instant::now();
    let pace = Pace::Windows { not_before: started };
    let mut run = start(started, started + HOUR, pace).await;
    for _ in 0..10 {
        run.server.frame().await.unwrap();
        run.server.accept(1).await;
    }
    run.stop.cancel();
    let mut answered = 10;
    while run.server.frame().await.is_some() {
        run.server.accept(1).await;
        answered += 1;
    }
    let (tally, latencies) = run.end().await;
    assert_eq!((tally.accepted, tally.sent, latencies.len()), (answered, answered, answered));
    assert!((10..=14).contains(&answered), "{answered}");
    assert_eq!((tally.late, tally.unanswered, tally.unsent), (0, 0, 0));
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_with_what_it_took_along() {
    let started = Instant::now();
    let mut run = start(started, started + HOUR, rate(started, 1_000)).await;
    run.server.frame().await.unwrap();
    run.server.refuse(Refusal::new(Code::UnknownType, "no such type")).await;
    run.server.frame().await.unwrap();
    run.server.close(1001).await;
    let ended = run.load.await.unwrap().unwrap();
    let tally = ended.settle(started + HOUR);
    assert!(tally.failure.is_some());
    assert_eq!(tally.refused.get("unknown_type"), Some(&1));
    assert!(tally.unanswered >= 1, "{tally:?}");
    assert_eq!(tally.sent + tally.unsent, 3_600_000);
    assert_eq!(tally.sent, tally.unanswered + 1);
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it_where_there_is_no_rate() {
    let started = Instant::now();
    let pace = Pace::Windows { not_before: started };
    let mut run = start(started, started + HOUR, pace).await;
    for _ in 0..4 {
        run.server.frame().await.unwrap();
    }
    let refused = Instant::now();
    run.server.refuse(Refusal::new(Code::Overloaded, "wait")).await;
    run.server.frame().await.unwrap();
    assert!(refused.elapsed() >= Duration::from_millis(100), "{:?}", refused.elapsed());
    run.stop.cancel();
    for _ in 0..4 {
        run.server.accept(1).await;
    }
    assert_eq!(run.end().await.0.accepted, 4);
}
