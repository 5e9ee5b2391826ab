use std::fs;

use toml::de::DeTable;

use super::{
    document::{Problems, Table},
    *,
};

/// What is needed around a setting to make the file valid.
const REST: &str = r#"
[types.system]
[receivers.journal]
component = "journal.wasm"
types = ["system"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("conf/wharf.toml"))
}

/// The report about settings that stand before [`REST`].
fn report(settings: &str) -> String {
    report_of(&format!("{settings}{REST}"))
}

fn report_of(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// A file of the repository's `config` folder.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
}

mod accepted {
    use super::*;

    #[test]
    fn the_least_is_all_defaults() {
        let config = parse(REST).unwrap();
        let journal =
            Receiver::new("journal".to_owned(), "conf/journal.wasm".into(), vec!["system".to_owned()]);
        assert_eq!(
            config,
            Config {
                file: "conf/wharf.toml".into(),
                data_dir: "conf/data".into(),
                auth: Auth::Off,
                listen: Listen::default(),
                limits: Limits::default(),
                log: Log::default(),
                state: State::default(),
                presence: Presence::default(),
                host: Host::default(),
                types: vec![DataType::new("system".to_owned())],
                receivers: vec![journal],
            }
        );
    }

    #[test]
    fn the_demo_maps_the_dashboard_to_everything() {
        let config = Config::load(&shipped("demo.toml")).unwrap();
        let types: Vec<_> = config.types.iter().map(|data_type| data_type.name.as_str()).collect();
        assert_eq!(types, ["ethereum_metrics", "networking_metrics", "system_metrics"]);
        let [dashboard, journal] = &config.receivers[..] else { panic!("{:?}", config.receivers) };
        assert_eq!((dashboard.name.as_str(), dashboard.live), ("dashboard", true));
        assert_eq!(dashboard.types, types);
        assert_eq!((journal.name.as_str(), journal.live), ("journal", false));
        assert_eq!(journal.types, ["ethereum_metrics"]);
        assert_eq!(config.listen, Listen::default());
    }

    #[test]
    fn the_reference_says_the_defaults() {
        let file = shipped("reference.toml");
        let config = Config::load(&file).unwrap();
        let least = "[types.system_metrics]\n[receivers.journal]\ncomponent = \"journal.wasm\"\ntypes = [\"system_metrics\"]";
        assert_eq!(config, Config::parse(least, &file).unwrap());
    }

    #[test]
    fn the_reference_names_every_key() {
        let text = fs::read_to_string(shipped("reference.toml")).unwrap();
        let document = DeTable::parse(&text).unwrap();
        let problems = Problems::new(&text);
        read::config_of(&mut Table::root(&problems, document.get_ref()), Path::new("reference.toml"));
        assert_eq!(*problems.absent.borrow(), [""; 0]);
        assert_eq!(problems.into_sorted(), []);
    }

    #[test]
    fn every_key_can_be_changed() {
        let config = parse(
            r#"
            data-dir = "/var/lib/wharf"
            [listen]
            agents = "[::1]:0"
            admin = "127.0.0.1:0"
            allowed-hosts = ["Wharf.example:4000", "wharf"]
            allowed-origins = ["https://wharf.example", "http://localhost:3000"]
            [limits]
            max-frame = "1.5MiB"
            append-wait = "0s"
            request-timeout = "1m 30s"
            [host]
            threads = 3
            [types."a.b"]
            durability = "os"
            [types.c]
            durability = "memory"
            [receivers.r]
            component = "/opt/r.wasm"
            types = ["c", "a.b"]
            encoding = "as-sent"
            memory = "256MiB"
            instances = 64
            max-wait = "0s"
            tick = "1m"
            http = ["https://api.example.com", "http://127.0.0.1:8000"]
            files = [{ host = "out", guest = "/out", write = true }, { host = "/srv/in", guest = "/in" }]
            [receivers.r.config]
            greeting = "hello"
            verbose = true
            limits = { cpu = 9_0, "load.1" = 0.5 }
            [presence]
            timeout = "1s"
            max-agents = 7
            "#,
        )
        .unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/wharf"));
        assert_eq!(config.listen.agents, "[::1]:0".parse().unwrap());
        assert_eq!(config.listen.allowed_hosts, ["wharf.example:4000", "wharf"]);
        assert_eq!(config.listen.allowed_origins, ["https://wharf.example", "http://localhost:3000"]);
        assert_eq!(config.limits.max_frame, 1536 * KIB);
        assert_eq!(config.limits.append_wait, Duration::ZERO);
        assert_eq!(config.limits.request_timeout, Duration::from_secs(90));
        assert_eq!(config.host.threads, 3);
        let durabilities: Vec<_> = config.types.iter().map(|data_type| data_type.durability).collect();
        assert_eq!(durabilities, [Durability::Os, Durability::Memory]);
        let receiver = &config.receivers[0];
        assert_eq!(receiver.component, Path::new("/opt/r.wasm"));
        assert_eq!(receiver.types, ["c", "a.b"], "the order of the file");
        assert_eq!(receiver.encoding, Encoding::AsSent);
        assert_eq!((receiver.memory, receiver.instances), (256 * MIB, 64));
        assert_eq!(receiver.max_wait, Duration::ZERO);
        assert_eq!(receiver.tick, Some(Duration::from_secs(60)));
        assert_eq!(receiver.http.len(), 2);
        let folders: Vec<_> = receiver.files.iter().map(|folder| (&*folder.guest, folder.write)).collect();
        assert_eq!(folders, [("/out", true), ("/in", false)]);
        assert_eq!(receiver.files[0].host, Path::new("conf/out"));
        let settings: Vec<_> =
            receiver.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            settings,
            [("greeting", "hello"), ("limits.cpu", "90"), ("limits.load.1", "0.5"), ("verbose", "true")]
        );
        assert_eq!((config.presence.timeout, config.presence.max_agents), (Duration::from_secs(1), 7));
    }
}

mod refused {
    use super::*;

    #[test]
    fn keys_that_nobody_knows() {
        insta::assert_snapshot!(report("listne = 3\nwhatever = true\n[limits]\nmax-frme = \"8MiB\"\nmaxframe = \"8MiB\""), @r#"
        accept the configuration:
        conf/wharf.toml:1: listne: unknown key, did you mean "listen"?
        conf/wharf.toml:2: whatever: unknown key, expected data-dir, auth, listen, limits, log, state, presence, host, types or receivers
        conf/wharf.toml:4: limits.max-frme: unknown key, did you mean "max-frame"?
        conf/wharf.toml:5: limits.maxframe: unknown key, did you mean "max-frame"?
        "#);
    }

    #[test]
    fn keys_in_the_wrong_table() {
        insta::assert_snapshot!(report_of(&format!("{REST}max-frame = \"8MiB\"\nmax_wait = \"5ms\"\n[types.other]\nretention = 1")), @r#"
        accept the configuration:
        conf/wharf.toml:6: receivers.journal.max-frame: unknown key, did you mean "max-age"?
        conf/wharf.toml:7: receivers.journal.max_wait: unknown key, did you mean "max-wait"?
        conf/wharf.toml:9: types.other.retention: unknown key, expected durability, retain, retain-bytes, dedup-window or dedup-messages
        "#);
    }

    #[test]
    fn mappings_that_do_not_fit() {
        insta::assert_snapshot!(report_of(
            r#"
            [types.system]
            [types.network]
            [receivers.a]
            component = "a.wasm"
            types = [
                "system",
                "netwrok",
                "system",
                3,
            ]
            [receivers.b]
            component = "b.wasm"
            types = []
            [receivers.c]
            component = "c.wasm"
            types = "system"
            [receivers.d]
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:8: receivers.a.types: found "netwrok", expected a configured data type: network or system
        conf/wharf.toml:9: receivers.a.types: found "system" twice, expected each data type once
        conf/wharf.toml:10: receivers.a.types: found 3, expected the name of a data type
        conf/wharf.toml:14: receivers.b.types: found an empty list, expected at least one data type
        conf/wharf.toml:17: receivers.c.types: found "system", expected a list, each of which is the name of a data type
        conf/wharf.toml:18: receivers.d: found no "component", expected the path of a component
        conf/wharf.toml:18: receivers.d: found no "types", expected a list of data types
        "#);
    }

    #[test]
    fn folders_of_guests() {
        let grants = ["/a/", "a", "/a/../b", "//a", "/a/./b", "/ok", "/ok"]
            .map(|guest| format!("{{ host = 'a', guest = '{guest}' }}"));
        insta::assert_snapshot!(report_of(&format!("{REST}files = [\n{}\n]", grants.join(",\n"))), @r#"
        accept the configuration:
        conf/wharf.toml:7: receivers.journal.files.guest: found "/a/", expected an absolute path such as "/out", without "..", "//" or a "/" at its end
        conf/wharf.toml:8: receivers.journal.files.guest: found "a", expected an absolute path such as "/out", without "..", "//" or a "/" at its end
        conf/wharf.toml:9: receivers.journal.files.guest: found "/a/../b", expected an absolute path such as "/out", without "..", "//" or a "/" at its end
        conf/wharf.toml:10: receivers.journal.files.guest: found "//a", expected an absolute path such as "/out", without "..", "//" or a "/" at its end
        conf/wharf.toml:11: receivers.journal.files.guest: found "/a/./b", expected an absolute path such as "/out", without "..", "//" or a "/" at its end
        conf/wharf.toml:13: receivers.journal.files.guest: found "/ok" twice, expected each path once
        "#);
    }

    #[test]
    fn sizes() {
        insta::assert_snapshot!(report(
            r#"
            [limits]
            max-frame = 64
            [log]
            segment-size = "64"
            queue-size = "64 potatoes"
            tail-size = "1B"
            [host]
            max-memory = "5GiB"
            max-component = true
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:3: limits.max-frame: found 64, expected a size with a unit such as "64MiB"
        conf/wharf.toml:5: log.segment-size: found "64", expected a size with a unit such as "64MiB"
        conf/wharf.toml:6: log.queue-size: found "64 potatoes", expected a size with a unit such as "64MiB"
        conf/wharf.toml:7: log.tail-size: found 1B, expected 1KiB to 1TiB
        conf/wharf.toml:9: host.max-memory: found 5GiB, expected 64KiB to 4GiB
        conf/wharf.toml:10: host.max-component: found true, expected a size with a unit such as "64MiB"
        "#);
    }

    #[test]
    fn durations() {
        insta::assert_snapshot!(report(
            r#"
            [limits]
            append-wait = 5
            request-timeout = "30"
            shutdown-timeout = "10 parsecs"
            [state]
            cursor-interval = "1h"
            [host]
            compile-timeout = "0s"
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:3: limits.append-wait: found 5, expected a duration with a unit such as "250ms"
        conf/wharf.toml:4: limits.request-timeout: found "30", expected a duration with a unit such as "250ms"
        conf/wharf.toml:5: limits.shutdown-timeout: found "10 parsecs", expected a duration with a unit such as "250ms"
        conf/wharf.toml:7: state.cursor-interval: found 1h, expected 1ms to 10s
        conf/wharf.toml:9: host.compile-timeout: found 0s, expected 1ms to 1h
        "#);
    }

    #[test]
    fn types_of_toml() {
        insta::assert_snapshot!(report(
            r#"
            limits = 3
            [host]
            max-instances = "64"
            threads = -1
            [listen]
            agents = 4000
            admin = "localhost:4001"
            allowed-hosts = "wharf.example"
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:2: limits: found 3, expected a table [limits]
        conf/wharf.toml:4: host.max-instances: found "64", expected a whole number from 1 to 10000
        conf/wharf.toml:5: host.threads: found -1, expected a whole number from 0 to 1024
        conf/wharf.toml:7: listen.agents: found 4000, expected an IP address with a port such as "127.0.0.1:4000"
        conf/wharf.toml:8: listen.admin: found "localhost:4001", expected an IP address with a port such as "127.0.0.1:4001"
        conf/wharf.toml:9: listen.allowed-hosts: found "wharf.example", expected a list, each of which is a host name, with its port if not the usual one, such as "wharf.example"
        "#);
    }

    #[test]
    fn what_is_not_toml() {
        insta::assert_snapshot!(report("data-dir = data\n[listen\nagents = \"127.0.0.1:4000\"\n"), @r#"
        accept the configuration:
        conf/wharf.toml:1: not TOML: found "data", string values must be quoted, expected literal string
        conf/wharf.toml:2: not TOML: unclosed table, expected `]`
        "#);
        insta::assert_snapshot!(report("auth = \"off\"\nauth = \"off\"\n"), @r#"
        accept the configuration:
        conf/wharf.toml:2: not TOML: found "auth", duplicate key
        "#);
    }

    #[test]
    fn open_doors() {
        insta::assert_snapshot!(report("[listen]\nagents = \"0.0.0.0:4000\"\nadmin = \"[::]:4001\"\n"), @r#"
        accept the configuration:
        conf/wharf.toml:2: listen.agents: found "0.0.0.0:4000", expected a loopback address such as "127.0.0.1:4000", because auth = "off" lets in whoever reaches it
        conf/wharf.toml:3: listen.admin: found "[::]:4001", expected a loopback address such as "127.0.0.1:4001": it controls the server
        "#);
        insta::assert_snapshot!(report("auth = \"accounts\"\n"), @r#"
        accept the configuration:
        conf/wharf.toml:1: auth: found "accounts", expected "off": there are no accounts yet
        "#);
    }

    #[test]
    fn names_and_addresses_of_the_web() {
        insta::assert_snapshot!(report(
            r#"
            [listen]
            allowed-hosts = ["https://wharf.example", "me@wharf.example", "*.example", "wharf:99999", ""]
            allowed-origins = ["wharf.example", "https://wharf.example/", "file:///tmp", "*"]
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:3: listen.allowed-hosts: found "", expected a host name, with its port if not the usual one, such as "wharf.example"
        conf/wharf.toml:3: listen.allowed-hosts: found "*.example", expected a host name, with its port if not the usual one, such as "wharf.example"
        conf/wharf.toml:3: listen.allowed-hosts: found "https://wharf.example", expected a host name, with its port if not the usual one, such as "wharf.example"
        conf/wharf.toml:3: listen.allowed-hosts: found "me@wharf.example", expected a host name, with its port if not the usual one, such as "wharf.example"
        conf/wharf.toml:3: listen.allowed-hosts: found "wharf:99999", expected a host name, with its port if not the usual one, such as "wharf.example"
        conf/wharf.toml:4: listen.allowed-origins: found "*", expected an origin such as "https://wharf.example"
        conf/wharf.toml:4: listen.allowed-origins: found "file:///tmp", expected an origin such as "https://wharf.example"
        conf/wharf.toml:4: listen.allowed-origins: found "https://wharf.example/", expected an origin such as "https://wharf.example"
        conf/wharf.toml:4: listen.allowed-origins: found "wharf.example", expected an origin such as "https://wharf.example"
        "#);
    }

    #[test]
    fn listeners_that_meet() {
        insta::assert_snapshot!(report("[listen]\nagents = \"127.0.0.1:4001\"\n"), @r#"
        accept the configuration:
        conf/wharf.toml:2: listen.agents: found "127.0.0.1:4001", expected another address than that of listen.admin
        "#);
    }

    #[test]
    fn more_instances_than_the_pool_has() {
        insta::assert_snapshot!(report_of(
            r#"
            host.max-instances = 8
            [types.t]
            [receivers.a]
            component = "a.wasm"
            types = ["t"]
            instances = 6
            [receivers.b]
            component = "b.wasm"
            types = ["t"]
            instances = 3
            [receivers.c]
            component = "c.wasm"
            types = ["t"]
            instances = 65
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:11: receivers.b.instances: found 3, which makes 9 with the receivers before it in the order of names, expected at most 8 together (host.max-instances)
        conf/wharf.toml:15: receivers.c.instances: found 65, expected a whole number from 1 to 64
        "#);
    }

    #[test]
    fn settings_of_a_receiver_that_it_could_not_read() {
        insta::assert_snapshot!(report_of(&format!(
            "{REST}[receivers.journal.config]\n\"a.b\" = 1\na = {{ b = 2 }}\n\"\" = 3\n\"x=y\" = 4\n\"n\\u0000\" = 5\nnul = \"\\u0000\"\nlist = [6]"
        )), @r#"
        accept the configuration:
        conf/wharf.toml:7: receivers.journal.config."a.b": found twice, as a table within and with dots in its name, expected each key once
        conf/wharf.toml:9: receivers.journal.config."": expected a name that is not empty and has neither "=" nor a NUL character in it
        conf/wharf.toml:10: receivers.journal.config."x=y": expected a name that is not empty and has neither "=" nor a NUL character in it
        conf/wharf.toml:11: receivers.journal.config."n\0": expected a name that is not empty and has neither "=" nor a NUL character in it
        conf/wharf.toml:12: receivers.journal.config.nul: found a NUL character, expected a text without
        conf/wharf.toml:13: receivers.journal.config.list: found a list, expected a text, a number, true or false: a receiver gets texts
        "#);
    }

    #[test]
    fn settings_that_contradict_each_other() {
        insta::assert_snapshot!(report_of(
            r#"
            [types.t]
            [receivers.r]
            component = "r.wasm"
            types = ["t"]
            memory = "257MiB"
            max-bytes = "258MiB"
            max-wait = "6s"
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:6: receivers.r.memory: found 257MiB, expected at most the 256MiB of host.max-memory
        conf/wharf.toml:7: receivers.r.max-bytes: found 258MiB, expected at most the 257MiB of the receiver's memory
        conf/wharf.toml:8: receivers.r.max-wait: found 6s, expected less than the receiver's deadline of 5s
        "#);
    }

    #[test]
    fn components() {
        insta::assert_snapshot!(report_of(
            r#"
            [types.t]
            [receivers.without]
            types = ["t"]
            [receivers.empty]
            component = ""
            types = ["t"]
            [receivers.inside]
            component = "x/../data/./r.wasm"
            types = ["t"]
            "#
        ), @r#"
        accept the configuration:
        conf/wharf.toml:3: receivers.without: found no "component", expected the path of a component
        conf/wharf.toml:6: receivers.empty.component: found "", expected the path of a component
        conf/wharf.toml:9: receivers.inside.component: found "conf/x/../data/./r.wasm", expected a file outside the data directory "conf/data", which is the server's own
        "#);
    }

    #[test]
    fn names() {
        let long = "n".repeat(65);
        insta::assert_snapshot!(report_of(&format!(
            r#"
            [types."../etc"]
            [types.".hidden"]
            [types.Upper]
            [types.{long}]
            [receivers.under_score]
            component = "r.wasm"
            types = ["Upper"]
            "#
        )), @r#"
        accept the configuration:
        conf/wharf.toml:2: types."../etc": found the name "../etc", expected 1 to 64 of a-z, 0-9, "_", "." and "-", beginning with a letter or digit
        conf/wharf.toml:3: types.".hidden": found the name ".hidden", expected 1 to 64 of a-z, 0-9, "_", "." and "-", beginning with a letter or digit
        conf/wharf.toml:4: types.Upper: found the name "Upper", expected 1 to 64 of a-z, 0-9, "_", "." and "-", beginning with a letter or digit
        conf/wharf.toml:5: types.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn: found the name "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"…, expected 1 to 64 of a-z, 0-9, "_", "." and "-", beginning with a letter or digit
        conf/wharf.toml:6: receivers.under_score: found the name "under_score", expected 1 to 64 of a-z, 0-9 and "-", beginning with a letter or digit
        "#);
    }

    #[test]
    fn a_file_without_data_types() {
        insta::assert_snapshot!(report_of("\n\n[receivers.r]\ncomponent = \"r.wasm\"\ntypes = [\"t\"]"), @r#"
        accept the configuration:
        conf/wharf.toml:1: types: found no data type, expected at least one, such as [types.system_metrics]
        "#);
    }

    #[test]
    fn what_is_no_configuration_at_all() {
        let error = parse(&"\u{1}=\n".repeat(300_000)).unwrap_err();
        let ConfigError::Invalid { problems, .. } = error else { panic!("{error}") };
        assert_eq!(problems.len(), 50);
    }

    #[test]
    fn values_are_escaped_and_cut() {
        let long = format!("auth = \"\\u001b[31m\\n{}\"\n", "long".repeat(100));
        insta::assert_snapshot!(report(&long), @r#"
        accept the configuration:
        conf/wharf.toml:1: auth: found "\u{1b}[31m\nlonglonglonglonglonglonglonglonglonglonglonglonglonglo"…, expected "off": there are no accounts yet
        "#);
    }
}

mod unreadable {
    use super::*;

    #[test]
    fn files_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wharf.toml");
        let load =
            || Config::load(&file).unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR");

        insta::assert_snapshot!(load(), @r#"read the configuration "DIR/wharf.toml""#);
        fs::write(&file, b"data-dir = \"\xff\"").unwrap();
        insta::assert_snapshot!(load(), @r#"read the configuration "DIR/wharf.toml": it is not UTF-8 text"#);
        fs::write(&file, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        insta::assert_snapshot!(load(), @r#"read the configuration "DIR/wharf.toml": it has more than 1048576 bytes"#);
    }
}
