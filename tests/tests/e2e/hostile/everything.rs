//! All of them at a time, with the limits that receivers have by default.

use e2e::{Config, eventually, files};

use super::{Ring, with_hostile};

/// Modes in which no message is ever handled.
const FAILING: [&str; 11] = [
    "loop",
    "init-loop",
    "sleep",
    "recurse",
    "allocate",
    "trap",
    "panic-huge",
    "exit",
    "publish-huge",
    "leak-pollables",
    "leak-fields",
];

/// Modes that are a burden, and no fault.
const BURDENS: [&str; 4] = ["print", "log", "store", "hoard"];

#[tokio::test]
async fn a_house_full_of_them() {
    let mut config = Config::new().receiver("victim", &files::guest("recorder"), &["metrics"]);
    for (modes, deadline) in [(&FAILING[..], "300ms"), (&BURDENS[..], "20s")] {
        for mode in modes {
            let name = format!("x-{mode}");
            config = with_hostile(config, &name, mode)
                .set(&format!("receivers.{name}.deadline"), deadline)
                .set(&format!("receivers.{name}.keyvalue-bytes"), "1MiB");
        }
    }
    let ring = Ring::start(config).await;
    for mode in FAILING {
        let hostile = eventually(&format!("{mode} to be quarantined"), async || {
            let hostile = ring.server.receiver(&format!("x-{mode}")).await;
            (hostile["state"] == "quarantined").then_some(hostile)
        })
        .await;
        assert_eq!(hostile["handled"], 0, "{hostile:#}");
    }
    for mode in BURDENS {
        let hostile = ring.server.receiver(&format!("x-{mode}")).await;
        assert_eq!(hostile["failed"], 0, "{hostile:#}");
    }
    ring.end().await;
}
