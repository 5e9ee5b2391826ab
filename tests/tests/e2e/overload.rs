//! What agents hear while the server can't keep their messages: too many at once, or a disk that fails.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Rest, Site, eventually, files};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Most of the queue, so that while one message is written no other fits.
const LARGE: usize = 200 * 1024;

/// How often a server is flooded at most before it must have refused something.
const FLOODS: usize = 200;

fn small_queue() -> Config {
    Config::new()
        .set("limits.max-frame", "256KiB")
        .set("log.queue-size", "256KiB")
        .set("limits.append-wait", "0s")
}

fn large(agent: usize) -> Value {
    data(&format!("agent-{agent}"), json!({ "padding": "x".repeat(LARGE) }))
}

#[tokio::test]
async fn a_full_queue_refuses_over_websocket_and_says_when_to_try_again() {
    let server = Site::new(small_queue()).start().await;
    for encoding in Encoding::ALL {
        let mut agents = Vec::new();
        for _ in 0..4 {
            agents.push(Agent::connect(server.agents).await);
        }
        let mut refused = Vec::new();
        for _ in 0..FLOODS {
            for (index, agent) in agents.iter_mut().enumerate() {
                agent.send(encoding, &large(index)).await;
            }
            for agent in &mut agents {
                let (answered_in, answer) = agent.answer().await;
                assert_eq!(answered_in, encoding);
                if answer != success() {
                    refused.push(answer["error"].clone());
                }
            }
            if !refused.is_empty() {
                break;
            }
        }
        assert!(!refused.is_empty(), "the queue was never full");
        for error in refused {
            assert_eq!(error["code"], "overloaded", "{error}");
            assert!(error["retry_after_ms"].as_u64().is_some_and(|pause| pause > 0), "{error}");
        }
        // The connection lives on, and what was refused can be sent again.
        let agent = &mut agents[0];
        eventually("room in the queue", async || {
            (agent.call(encoding, &large(0)).await == success()).then_some(())
        })
        .await;
    }
    assert!(server.metrics().await.get(r#"wharf_calls_refused_total{code="overloaded"}"#) >= 2.0);
}

#[tokio::test]
async fn a_full_queue_refuses_over_rest_with_retry_after() {
    let server = Site::new(small_queue()).start().await;
    let rest = Rest::new(server.agents);
    for encoding in Encoding::ALL {
        let mut refused = Vec::new();
        for _ in 0..FLOODS {
            let (rest, calls) = (&rest, (0..8).map(large).collect::<Vec<_>>());
            let answers = join_all(calls.iter().map(|call| rest.call("/data", encoding, call))).await;
            refused.extend(answers.into_iter().filter(|answer| answer.status != 200));
            if !refused.is_empty() {
                break;
            }
        }
        assert!(!refused.is_empty(), "the queue was never full");
        for answer in refused {
            assert_eq!(answer.status, 503, "{}", answer.text());
            let value = answer.value();
            assert_eq!(value["error"], "overloaded", "{value}");
            assert!(value["retry_after_ms"].as_u64().is_some_and(|pause| pause > 0), "{value}");
            let seconds: u64 = answer.header("retry-after").expect("a 503 has Retry-After").parse().unwrap();
            assert!(seconds >= 1);
        }
        eventually("room in the queue", async || {
            (rest.call("/data", encoding, &large(0)).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_queue_is_waited_for_as_long_as_the_config_says() {
    let server = Site::new(small_queue().set("limits.append-wait", "30s")).start().await;
    let mut agent = Agent::connect(server.agents).await;
    for index in 0..50 {
        agent.send(Encoding::Json, &large(index)).await;
    }
    for _ in 0..50 {
        assert_eq!(agent.answer().await, (Encoding::Json, success()));
    }
}

/// Larger than a segment of the smallest size, so that each message begins a new one.
const SEGMENT: usize = 1024 * 1024 + 1;

#[tokio::test]
async fn a_disk_that_fails_is_an_internal_error_until_it_works_again() {
    let site =
        Site::new(Config::new().set("limits.max-frame", "2MiB").set("log.segment-size", "1MiB").receiver(
            "puppet",
            &files::guest("puppet"),
            &["metrics"],
        ));
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let rest = Rest::new(server.agents);
    let (topic, away) = (site.topic("metrics"), site.path().join("away"));
    let message = |name: &str| data("a", json!({ "name": name, "padding": "x".repeat(SEGMENT) }));
    let mut accepted = 0;
    for encoding in Encoding::ALL {
        assert_eq!(agent.call(encoding, &message("before")).await, success());
        std::fs::rename(&topic, &away).unwrap();
        let answer = agent.call(encoding, &message("lost")).await;
        assert_eq!(answer["error"]["code"], "internal", "{answer}");
        let message_text = answer["error"]["message"].as_str().unwrap();
        assert!(!message_text.contains('/'), "what failed is for the operator: {message_text:?}");
        let answer = rest.call("/data", encoding, &message("lost")).await;
        assert_eq!((answer.status, &answer.value()["error"]), (500, &json!("internal")), "{}", answer.text());
        std::fs::rename(&away, &topic).unwrap();
        assert_eq!(agent.call(encoding, &message("after")).await, success());
        accepted += 2;
    }
    let log = &server.log;
    log.wait_for(&["ERROR", "metrics"]).await;
    eventually("the receiver to have handled what was accepted", async || {
        (server.receiver("puppet").await["handled"] == accepted).then_some(())
    })
    .await;
    assert_eq!(server.status().await["types"][0]["accepted"], accepted);
}
