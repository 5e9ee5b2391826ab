//! Prints its ticks, changes of presence and messages, a line each, in the order in which they come. Its settings make it fail:
//! with `trap-tick` every tick traps, with `trap-agent = "NAME"` every change of that agent. With `slow-ms` each batch takes so
//! long, with `slow-tick-ms` each tick.

use std::time::Duration;

use exports::wharf::receiver::{handler, presence, timer};
use wharf::receiver::types::{Batch, Failure, PresenceChange};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package fixture:watcher;
        world watcher {
            include wharf:receiver/base@0.1.0;
            export wharf:receiver/presence@0.1.0;
            export wharf:receiver/timer@0.1.0;
        }
    ",
    world: "fixture:watcher/watcher",
    generate_all,
});

struct Watcher;

impl handler::Guest for Watcher {
    fn handle(batch: Batch) -> Vec<Failure> {
        be_slow("slow-ms");
        for message in &batch.messages {
            println!("{} {} message", batch.data_type, message.agent);
        }
        Vec::new()
    }
}

impl presence::Guest for Watcher {
    fn agents_changed(changes: Vec<PresenceChange>) {
        let trapping = std::env::var("trap-agent").ok();
        for change in &changes {
            assert_ne!(Some(&change.agent), trapping.as_ref(), "told to trap at a change of this agent");
            let what = if change.active { "active" } else { "inactive" };
            println!("{} {} {what}", change.data_type, change.agent);
        }
    }
}

impl timer::Guest for Watcher {
    fn tick() {
        assert!(std::env::var("trap-tick").is_err(), "told to trap at every tick");
        be_slow("slow-tick-ms");
        println!("tick");
    }
}

/// Waits as long as a setting says, if it is there.
fn be_slow(setting: &str) {
    if let Ok(pause) = std::env::var(setting) {
        std::thread::sleep(Duration::from_millis(pause.parse().expect("the setting is a number")));
    }
}

export!(Watcher);
