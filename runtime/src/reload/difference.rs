//! What differs between two configs, by key, and which of it a server that runs can't take over.

use crate::config::{Config, DataType, Host, Limits, Listen, Log, Presence, Receiver, State};

/// What was fixed when the server was started.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// Whether the key-value store of receivers is open.
    pub keyvalue: bool,
    /// The largest frame or body that there is room for.
    pub largest_body: u64,
    /// How many data types there is room for.
    pub types: usize,
    /// Requests for pages, of all receivers together, that there is room for.
    pub pages: usize,
}

/// The keys of a table of which the values differ, by the fields that stand for them. A field that is left out does not compile.
macro_rules! differing {
    ($old:expr, $new:expr, $type:ident { $($field:ident),* $(,)? }) => {{
        let $type { $($field),* } = $old;
        let mut keys: Vec<String> = Vec::new();
        $(if *$field != $new.$field {
            keys.push(stringify!($field).replace('_', "-"));
        })*
        keys
    }};
}

/// The keys of a receiver that differ.
pub fn of_receiver(old: &Receiver, new: &Receiver) -> Vec<String> {
    let keys = differing!(
        old,
        new,
        Receiver {
            name,
            component,
            types,
            start,
            live,
            live_keys,
            live_bytes,
            keyvalue,
            keyvalue_bytes,
            http,
            outgoing_requests,
            outgoing_timeout,
            outgoing_body,
            outgoing_answer,
            files,
            settings,
            tick,
            encoding,
            memory,
            deadline,
            instances,
            max_messages,
            max_bytes,
            max_wait,
            max_in_flight,
            max_parked,
            max_age,
            max_backlog,
            on_overflow,
            dead_letters,
            dead_letter_bytes,
            max_attempts,
            retry_pause,
            quarantine_failures,
            quarantine_percent,
            quarantine_pause,
            quarantine_longest,
            resources,
            metric_series,
            http_concurrency,
            http_deadline,
            http_body,
            log_lines,
            watch,
            swap_timeout,
            probation,
            probation_failed_percent,
            probation_slowdown,
            probation_redrive,
        }
    );
    // The one key that is called otherwise in the file.
    keys.into_iter().map(|key| if key == "settings" { "config".to_owned() } else { key }).collect()
}

/// The keys of a data type that differ.
pub fn of_type(old: &DataType, new: &DataType) -> Vec<String> {
    differing!(old, new, DataType { name, durability, retain, retain_bytes, dedup_window, dedup_messages })
}

/// Keys of a data type that a server that runs can take over.
const CHANGEABLE_OF_TYPE: [&str; 2] = ["retain", "retain-bytes"];

/// The changes that need a restart, by key.
pub fn needing_restart(old: &Config, new: &Config, fixed: Fixed) -> Vec<String> {
    let mut found = of_server(old, new);
    for data_type in &new.types {
        let table = format!("types.{}", data_type.name);
        if let Some(old) = old.types.iter().find(|old| old.name == data_type.name) {
            let keys = of_type(old, data_type).into_iter();
            let fixed = keys.filter(|key| !CHANGEABLE_OF_TYPE.contains(&key.as_str()));
            found.extend(in_table(&table, fixed.collect()));
        }
    }
    let removed = old.types.iter().filter(|old| new.types.iter().all(|new| new.name != old.name));
    found.extend(removed.map(|removed| format!("types.{}", removed.name)));
    found.extend(without_room(new, fixed));
    found
}

/// Those of the server as a whole.
fn of_server(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if old.data_dir != new.data_dir {
        found.push("data-dir".to_owned());
    }
    if old.auth != new.auth {
        found.push("auth".to_owned());
    }
    let listen =
        differing!(&old.listen, new.listen, Listen { agents, admin, allowed_hosts, allowed_origins });
    found.extend(in_table("listen", listen));
    let limits = differing!(
        &old.limits,
        new.limits,
        Limits {
            max_frame,
            max_connections,
            max_depth,
            max_calls,
            max_unanswered,
            max_unanswered_bytes,
            max_arriving_bytes,
            frame_timeout,
            append_wait,
            request_timeout,
            shutdown_timeout,
        }
    );
    found.extend(in_table("limits", limits));
    let mut log = differing!(
        &old.log,
        new.log,
        Log { segment_size, queue_size, tail_size, disk_reserve, absent_grace }
    );
    // How long is waited for a receiver that is gone is looked up again at every reload.
    log.retain(|key| key != "absent-grace");
    found.extend(in_table("log", log));
    found.extend(in_table("state", differing!(&old.state, new.state, State { cursor_interval })));
    let presence = differing!(&old.presence, new.presence, Presence { timeout, max_agents });
    found.extend(in_table("presence", presence));
    let host = differing!(
        &old.host,
        new.host,
        Host { max_memory, max_instances, threads, compile_memory, compile_timeout, max_component }
    );
    found.extend(in_table("host", host));
    found
}

/// What of receivers there is no room for.
fn without_room(new: &Config, fixed: Fixed) -> Vec<String> {
    let mut found = Vec::new();
    for receiver in &new.receivers {
        let name = &receiver.name;
        if receiver.keyvalue && !fixed.keyvalue {
            found.push(format!("receivers.{name}.keyvalue (no receiver had it when the server was started)"));
        }
        if receiver.http_body > fixed.largest_body {
            found.push(format!(
                "receivers.{name}.http-body (above {} bytes, the largest frame or body when the server was started)",
                fixed.largest_body
            ));
        }
    }
    if new.types.len() > fixed.types {
        found.push(format!(
            "types (there are {}, the server was started with room for {})",
            new.types.len(),
            fixed.types
        ));
    }
    let pages: usize = new.receivers.iter().map(|receiver| receiver.http_concurrency).sum();
    if pages > fixed.pages {
        found.push(format!(
            "http-concurrency (of all receivers together {pages}, the server was started with room for {})",
            fixed.pages
        ));
    }
    found
}

fn in_table(table: &str, keys: Vec<String>) -> impl Iterator<Item = String> {
    keys.into_iter().map(move |key| format!("{table}.{key}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FIXED: Fixed = Fixed { keyvalue: false, largest_body: 8 << 20, types: 3, pages: 24 };

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("wharf.toml")).unwrap()
    }

    fn with(more: &str) -> Config {
        config(&format!("auth = \"off\"\n{more}\n[types.a]\n[types.b]\n"))
    }

    fn receiver(more: &str) -> Receiver {
        let text = format!("[types.a]\n[types.b]\n[receivers.r]\ncomponent = \"r.wasm\"\n{more}");
        config(&text).receivers.remove(0)
    }

    #[test]
    fn nothing_differs_from_itself() {
        let one = with("");
        assert_eq!(needing_restart(&one, &one.clone(), FIXED), [""; 0]);
        let one = receiver("types = [\"a\"]");
        assert_eq!(of_receiver(&one, &one.clone()), [""; 0]);
    }

    #[test]
    fn what_differs_of_a_receiver_is_named_as_in_the_file() {
        let old = receiver("types = [\"a\"]");
        let new = receiver(
            "types = [\"a\", \"b\"]\nlive = true\nmax-wait = \"1ms\"\nprobation = \"1s\"\n[receivers.r.config]\nx = 1",
        );
        assert_eq!(of_receiver(&old, &new), ["types", "live", "config", "max-wait", "probation"]);
    }

    #[test]
    fn every_section_says_what_needs_a_restart() {
        let new = config(
            "data-dir = \"elsewhere\"\n[listen]\nadmin = \"127.0.0.1:5001\"\n[limits]\nmax-frame = \"1MiB\"\n\
             [log]\nabsent-grace = \"1h\"\nqueue-size = \"1MiB\"\n[state]\ncursor-interval = \"1s\"\n\
             [presence]\ntimeout = \"1s\"\n[host]\nthreads = 1023\n\
             [types.b]\ndurability = \"os\"\nretain = \"1h\"\n[types.c]\n",
        );
        let expected = [
            "data-dir",
            "listen.admin",
            "limits.max-frame",
            "log.queue-size",
            "state.cursor-interval",
            "presence.timeout",
            "host.threads",
            "types.b.durability",
            "types.a",
        ];
        assert_eq!(needing_restart(&with(""), &new, FIXED), expected);
    }

    #[test]
    fn what_there_is_no_room_for_needs_a_restart() {
        let old = with("");
        let mut new = old.clone();
        let one = receiver("types = [\"a\"]\nhttp-concurrency = 24\nhttp-body = \"8MiB\"");
        new.receivers.push(one.clone());
        assert_eq!(needing_restart(&old, &new, FIXED), [""; 0]);
        new.receivers
            .push(receiver("types = [\"a\"]\nhttp-concurrency = 1\nhttp-body = \"9MiB\"\nkeyvalue = true"));
        let found = needing_restart(&old, &new, FIXED);
        let starts = [
            "receivers.r.keyvalue (",
            "receivers.r.http-body (",
            "http-concurrency (of all receivers together 25",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        assert!(found.iter().zip(starts).all(|(found, start)| found.starts_with(start)), "{found:?}");
    }
}
