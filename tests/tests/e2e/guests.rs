//! Every folder of `tests/guests` has a test, or this does not compile: the table below names, for each, a test that runs it. Add a
//! line with the folder and the test; a folder that is not in the table is an error of the compiler that says so, and so are a
//! test or a folder that is gone. Guests that the tests of `wharf-host` are about have a short case here.

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Server, Site, eventually, files};
use serde_json::{Value, json};

macro_rules! covered {
    ($($folder:literal => $($test:ident)::+,)+) => {
        const COVERED: &[&str] = &[$($folder),+];
        $(
            const _: fn() = $($test)::+;
            const _: () = assert!(
                contains(FOLDERS, $folder),
                concat!("tests/guests/", $folder, " is gone: remove it from the table")
            );
        )+
    };
}

covered! {
    "counter" => crate::guests::counter,
    "counter-next" => crate::guests::counter,
    "fetch" => crate::guests::fetch,
    "hostile" => crate::hostile::compute::an_endless_loop,
    "init-fails" => crate::poison::an_instance_that_cannot_begin_is_tried_again_while_others_work,
    "keyvalue" => crate::guests::keyvalue,
    "meter" => crate::bench::bodies_are_metrics_that_a_receiver_can_read,
    "no-handler" => crate::config::a_component_that_cannot_be_a_receiver_is_refused,
    "odd-import" => crate::config::a_component_that_cannot_be_a_receiver_is_refused,
    "page" => crate::pages::pages_are_listed_and_served,
    "puppet" => crate::poison::every_kind_of_fault_is_survived,
    "quiet" => crate::guests::quiet,
    "recorder" => crate::receivers::each_receiver_gets_its_types_and_each_message_once,
    "sockets" => crate::hostile::sockets::sockets_lead_nowhere,
    "tools" => crate::guests::tools,
    "watcher" => crate::timer::a_receiver_ticks_without_messages_and_on_one_of_its_instances,
}

include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// Whether a list has a name. Comparing texts is not for constants yet, so this goes byte by byte.
const fn contains(names: &[&str], name: &str) -> bool {
    let mut index = 0;
    while index < names.len() {
        if is_same(names[index].as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// Sends one message to a guest and gives the server, and the line of the log that contains these words.
async fn told(config: Config, message: Value, words: &str) -> (Server, String) {
    let server = Site::new(config).start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", message)).await, success());
    let line = server.log.wait_for(&["guest", words]).await;
    (server, line)
}

fn config(guest: &str) -> Config {
    Config::new().receiver("guest", &files::guest(guest), &["metrics"])
}

/// Both versions count, and do what only the other one is told to do not.
#[tokio::test]
async fn counter() {
    for name in ["counter", "counter-next"] {
        let server = Site::new(config(name)).start().await;
        let mut agent = Agent::connect(server.agents).await;
        for message in [json!({ "do": "fail", "in": "counter" }), json!({})] {
            assert_eq!(agent.call(Encoding::Json, &data("a", message)).await, success());
        }
        let expected: &[u64] = if name == "counter" { &[1] } else { &[1, 2] };
        let seen = server.log.wait_seen("guest", expected.len()).await;
        let counts: Vec<_> = seen.iter().filter_map(|seen| seen.count).collect();
        assert_eq!(counts, expected, "{seen:?}");
        assert!(seen.iter().all(|seen| seen.version.as_deref() == Some(name)), "{seen:?}");
    }
}

#[tokio::test]
async fn fetch() {
    let message = json!({ "url": "http://127.0.0.1:1/" });
    let (server, _) = told(config("fetch"), message, "HttpRequestDenied").await;
    assert!(!server.log.matching(&["WARN", "the receiver has no grant for requests"]).is_empty());
}

#[tokio::test]
async fn keyvalue() {
    let config = config("keyvalue").set("receivers.guest.keyvalue", true);
    // It answers by refusing the message.
    let message = json!({ "do": "increment", "key": "count", "delta": 7 });
    let (_, line) = told(config, message, "dead letter").await;
    assert!(line.contains("7"), "{line}");
}

#[tokio::test]
async fn quiet() {
    let server = Site::new(config("quiet")).start().await;
    let mut agent = Agent::connect(server.agents).await;
    assert_eq!(agent.call(Encoding::Json, &data("a", json!({}))).await, success());
    eventually("the message to be handled", async || {
        (server.receiver("guest").await["handled"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tools() {
    let config = config("tools").set("receivers.guest.config.colour", "green");
    told(config, json!({ "do": "setting", "key": "colour" }), "green").await;
}
