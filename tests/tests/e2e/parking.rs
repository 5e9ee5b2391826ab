//! Agents whose messages wait to be given again, and the others, which do not wait for them.

use std::collections::BTreeMap;

use e2e::calls::data;
use e2e::{Agent, Config, Encoding, Log, Server, Site, eventually, files};
use serde_json::{Value, json};
use wharf_log::Lane;

fn puppet() -> Config {
    Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .set("receivers.puppet.retry-pause", "1ms")
        .set("receivers.puppet.quarantine-failures", 1_000_000)
}

/// A puppet that gets every message alone: what comes in one batch with a message that is to come again may well be handled
/// before it.
fn one_by_one() -> Config {
    puppet().set("receivers.puppet.max-messages", 1)
}

async fn send(server: &Server, calls: impl IntoIterator<Item = Value>) {
    let calls: Vec<_> = calls.into_iter().collect();
    let mut agent = Agent::connect(server.agents).await;
    for some in calls.chunks(1_000) {
        let answer = agent.call(Encoding::Json, &some.iter().cloned().collect()).await;
        assert_eq!(answer, json!({ "result": "success", "accepted": some.len() }));
    }
}

fn named(agent: &str, number: usize) -> Value {
    data(agent, json!({ "agent": agent, "number": number }))
}

/// The numbers of the messages of each agent in the order in which the puppet handled them.
fn handled(log: &Log) -> BTreeMap<String, Vec<u64>> {
    let mut handled: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in log.guest_lines("puppet") {
        let Some(text) = line.strip_prefix("handled ") else { continue };
        let (_, body) = text.split_once(' ').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        if let (Some(agent), Some(number)) = (body["agent"].as_str(), body["number"].as_u64()) {
            handled.entry(agent.to_owned()).or_default().push(number);
        }
    }
    handled
}

/// What the puppet is said to have waiting, once it is that.
async fn wait_parked(server: &Server, agents: usize, parked: usize) {
    eventually(&format!("{agents} agents with {parked} messages that wait behind"), async || {
        let receiver = server.receiver("puppet").await;
        (receiver["waiting_agents"] == agents && receiver["parked"] == parked).then_some(())
    })
    .await;
}

async fn wait_handled(server: &Server, count: usize) {
    eventually(&format!("{count} messages handled"), async || {
        let receiver = server.receiver("puppet").await;
        (receiver["handled"] == count && receiver["lag"] == 0).then_some(())
    })
    .await;
}

/// An agent in the same lane as another one.
fn neighbour(of: &str, name: &str) -> String {
    (0..).map(|number| format!("{name}-{number}")).find(|agent| Lane::of(agent) == Lane::of(of)).unwrap()
}

#[tokio::test]
async fn only_the_agent_waits_whose_message_is_to_come_again() {
    let server = Site::new(one_by_one()).start().await;
    let neighbour = neighbour("stuck", "neighbour");
    send(&server, [data("stuck", json!({ "do": "hold" }))]).await;
    for number in 0..20 {
        send(&server, ["stuck", &neighbour, "other"].map(|agent| named(agent, number))).await;
    }
    wait_parked(&server, 1, 20).await;
    let all: Vec<u64> = (0..20).collect();
    eventually("the others to go on", async || {
        let handled = handled(&server.log);
        let done = |agent: &str| handled.get(agent) == Some(&all);
        (done(&neighbour) && done("other")).then_some(())
    })
    .await;
    assert!(!handled(&server.log).contains_key("stuck"));
    send(&server, [data("other", json!({ "do": "release" }))]).await;
    wait_handled(&server, 62).await;
    assert_eq!(handled(&server.log)["stuck"], all, "in order, each once");
    wait_parked(&server, 0, 0).await;
}

#[tokio::test]
async fn a_message_that_traps_waits_for_its_next_try_without_the_others() {
    let config = puppet().set("receivers.puppet.retry-pause", "1h").set("receivers.puppet.max-wait", "50ms");
    let server = Site::new(config).start().await;
    let calls = [
        data("poisoner", json!({ "do": "trap" })),
        named("other", 0),
        named("poisoner", 1),
        named("other", 2),
    ];
    send(&server, calls).await;
    wait_parked(&server, 1, 0).await;
    send(&server, [named("poisoner", 3), named("other", 4)]).await;
    wait_parked(&server, 1, 1).await;
    eventually("the other agent to go on", async || {
        (handled(&server.log).get("other")?.last() == Some(&4)).then_some(())
    })
    .await;
    let receiver = server.receiver("puppet").await;
    // The one that trapped and the one that was in its batch.
    assert_eq!((&receiver["in_flight"], &receiver["dead"]), (&json!(2), &json!(0)), "{receiver}");
}

#[tokio::test]
async fn what_waits_is_bounded_and_nothing_is_lost_at_the_bound() {
    let config = one_by_one().set("receivers.puppet.max-parked", 10);
    let mut site = Site::new(config);
    let server = site.start().await;
    send(&server, [data("stuck", json!({ "do": "hold" }))]).await;
    send(&server, (0..30).map(|number| named("stuck", number))).await;
    wait_parked(&server, 1, 10).await;
    // Behind the bound nothing is read, whoever it is from.
    send(&server, [data("other", json!({ "do": "release" }))]).await;
    assert_eq!(server.receiver("puppet").await["handled"], 0);
    wait_parked(&server, 1, 10).await;
    // With room for all of them, all come.
    server.stop().await;
    site.set("receivers.puppet.max-parked", 100);
    let server = site.start().await;
    wait_handled(&server, 32).await;
    assert_eq!(handled(&server.log)["stuck"], (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn messages_in_flight_are_bounded() {
    let config = puppet().set("receivers.puppet.max-in-flight", 5).set("receivers.puppet.max-messages", 5);
    let server = Site::new(config).start().await;
    let stuck: Vec<_> = (0..9).map(|number| format!("stuck-{number}")).collect();
    send(&server, stuck.iter().map(|agent| data(agent, json!({ "do": "hold" })))).await;
    wait_parked(&server, 5, 0).await;
    assert_eq!(server.receiver("puppet").await["in_flight"], 5);
}

#[tokio::test]
async fn what_was_finished_beside_a_waiting_agent_does_not_come_again_after_a_restart() {
    let site = Site::new(one_by_one());
    let server = site.start().await;
    let neighbour = neighbour("stuck", "neighbour");
    send(&server, [data("stuck", json!({ "do": "hold" }))]).await;
    for number in 0..20 {
        send(&server, [named("stuck", number), named(&neighbour, number)]).await;
    }
    wait_parked(&server, 1, 20).await;
    eventually("the neighbour to go on", async || {
        (handled(&server.log).get(&neighbour)?.len() == 20).then_some(())
    })
    .await;
    server.stop().await;
    let server = site.start().await;
    wait_parked(&server, 1, 20).await;
    send(&server, [data("other", json!({ "do": "release" }))]).await;
    wait_handled(&server, 22).await;
    let handled = handled(&server.log);
    assert_eq!(handled["stuck"], (0..20).collect::<Vec<_>>());
    assert!(!handled.contains_key(&neighbour), "{handled:?}");
}

#[tokio::test]
async fn another_number_of_instances_changes_no_order() {
    let mut site = Site::new(one_by_one());
    let agents: Vec<_> = (0..12).map(|number| format!("agent-{number}")).collect();
    let mut sent = 0;
    for instances in [1, 5, 2, 64] {
        site.set("receivers.puppet.instances", instances);
        let server = site.start().await;
        send(&server, [data("stuck", json!({ "do": "hold" }))]).await;
        for _ in 0..5 {
            send(&server, agents.iter().chain([&"stuck".to_owned()]).map(|agent| named(agent, sent))).await;
            sent += 1;
        }
        eventually("all but one agent to be done", async || {
            let handled = handled(&server.log);
            agents.iter().all(|agent| handled.get(agent).is_some_and(|all| all.len() == 5)).then_some(())
        })
        .await;
        let handled = handled(&server.log);
        for agent in &agents {
            let from = u64::try_from(sent).unwrap() - 5;
            assert_eq!(handled[agent], (from..from + 5).collect::<Vec<_>>(), "{instances} instances");
        }
        server.stop().await;
    }
    site.set("receivers.puppet.instances", 1);
    let server = site.start().await;
    send(&server, [data("other", json!({ "do": "release" }))]).await;
    eventually("the last agent to be done", async || {
        (handled(&server.log).get("stuck")?.len() == sent).then_some(())
    })
    .await;
    assert_eq!(handled(&server.log)["stuck"], (0..u64::try_from(sent).unwrap()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_that_waits_for_too_long_becomes_a_dead_letter() {
    let server = Site::new(one_by_one().set("receivers.puppet.max-age", "200ms")).start().await;
    send(&server, [data("a", json!({ "do": "hold" })), named("a", 1)]).await;
    let line = server.log.wait_for(&["ERROR", "dead letter", r#"agent.id="a""#]).await;
    assert!(line.contains("too-old") && line.contains("told to"), "{line}");
    eventually("the next one", async || (handled(&server.log).get("a")? == &[1]).then_some(())).await;
    assert_eq!(server.receiver("puppet").await["dead"], 1);
}

/// Messages of the agent `stuck` and of its neighbour each, more than a cursor has room for.
const ROUNDS: usize = 1_200;

/// Lets the agent `stuck` wait, and finishes a message of a neighbour between every two of its own, until the cursor of their
/// lane is full. Gives the neighbour, and an agent of another lane.
async fn fill_the_cursor_of_stuck(server: &Server) -> (String, String) {
    let neighbour = neighbour("stuck", "neighbour");
    send(server, [data("stuck", json!({ "do": "hold" }))]).await;
    let calls =
        (0..ROUNDS).flat_map(|number| ["stuck", neighbour.as_str()].map(|agent| named(agent, number)));
    send(server, calls).await;
    server.log.wait_for(&["WARN", "a lane waits", &format!("log.lane={}", Lane::of("stuck").index())]).await;
    (neighbour, of_another_lane("stuck"))
}

/// The name of an agent that does not share a lane with another one.
fn of_another_lane(of: &str) -> String {
    (0..).map(|number| format!("other-{number}")).find(|agent| Lane::of(agent) != Lane::of(of)).unwrap()
}

fn all_rounds() -> Vec<u64> {
    (0..u64::try_from(ROUNDS).unwrap()).collect()
}

#[tokio::test]
async fn a_lane_whose_cursor_is_full_waits_alone_and_says_so() {
    let server = Site::new(one_by_one()).start().await;
    let (neighbour, other) = fill_the_cursor_of_stuck(&server).await;
    send(&server, (0..10).map(|number| named(&other, number))).await;
    eventually("another lane to go on", async || {
        (handled(&server.log).get(&other)?.len() == 10).then_some(())
    })
    .await;
    let before = handled(&server.log);
    assert!(before[&neighbour].len() < ROUNDS && !before.contains_key("stuck"));
    send(&server, [data(&other, json!({ "do": "release" }))]).await;
    wait_handled(&server, 2 * ROUNDS + 12).await;
    let handled = handled(&server.log);
    assert_eq!((&handled["stuck"], &handled[&neighbour]), (&all_rounds(), &all_rounds()));
}

#[tokio::test]
async fn a_lane_whose_cursor_was_full_goes_on_after_a_restart() {
    let site = Site::new(one_by_one());
    let server = site.start().await;
    let (neighbour, other) = fill_the_cursor_of_stuck(&server).await;
    let mut of_neighbour = handled(&server.stop().await).remove(&neighbour).unwrap();
    let server = site.start().await;
    send(&server, [data(&other, json!({ "do": "release" }))]).await;
    eventually("the lane to have come to its end", async || {
        (server.receiver("puppet").await["lag"] == 0).then_some(())
    })
    .await;
    let handled = handled(&server.log);
    of_neighbour.extend(&handled[&neighbour]);
    assert_eq!((&handled["stuck"], &of_neighbour), (&all_rounds(), &all_rounds()));
}

#[tokio::test]
async fn what_comes_again_waits_for_room_in_its_cursor_too() {
    // Long enough for all of the neighbour's messages to be parked before its first one comes again.
    let site = Site::new(one_by_one().set("receivers.puppet.retry-pause", "1s"));
    let server = site.start().await;
    let neighbour = neighbour("stuck", "neighbour");
    send(&server, [data("stuck", json!({ "do": "hold" })), data(&neighbour, json!({ "do": "retry-once" }))])
        .await;
    let calls =
        (0..ROUNDS).flat_map(|number| ["stuck", neighbour.as_str()].map(|agent| named(agent, number)));
    send(&server, calls).await;
    server.log.wait_for(&["WARN", "a lane waits"]).await;
    let mut of_neighbour = handled(&server.stop().await).remove(&neighbour).unwrap();
    assert!(of_neighbour.len() < ROUNDS);
    let server = site.start().await;
    send(&server, [data(&of_another_lane("stuck"), json!({ "do": "release" }))]).await;
    eventually("the lane to have come to its end", async || {
        (server.receiver("puppet").await["lag"] == 0).then_some(())
    })
    .await;
    let handled = handled(&server.log);
    of_neighbour.extend(&handled[&neighbour]);
    assert_eq!((&handled["stuck"], &of_neighbour), (&all_rounds(), &all_rounds()));
}
