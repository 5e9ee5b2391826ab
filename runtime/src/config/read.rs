//! What the keys of the configuration mean: names, bounds, and what must fit together.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use http::uri::Authority;
use toml::de::DeTable;
use url::Url;
use wharf_host::{FolderGrant, Origin};
use wharf_log::{Durability, LANES, MAX_APPEND_BYTES};
use wharf_state::MAX_RUNS;

use super::{
    Auth, Config, ConfigError, DataType, Encoding, GIB, Host, KIB, Limits, Listen, Log, MIB, OnOverflow,
    Presence, Receiver, Start, State,
    document::{Problems, Table, alternatives, quote_text, show_size},
};

/// Sizes outside are slips of the unit: no buffer of Wharf is useful below and no machine has more.
const SIZES: RangeInclusive<u64> = KIB..=1024 * GIB;

/// Bytes of a frame. Its messages are one append to the log, and take at most twice the room there that they took in the
/// frame, because a call's own field names outweigh what the log adds to each message.
const FRAMES: RangeInclusive<u64> = KIB..=MAX_APPEND_BYTES as u64 / 2;

/// Below a segment of this size, a busy topic would have thousands of files.
const SEGMENTS: RangeInclusive<u64> = MIB..=1024 * GIB;

/// Bytes that wait to be written: beyond, a slow disk would let messages wait for longer than any agent does.
const QUEUES: RangeInclusive<u64> = KIB..=2 * GIB;

/// Memory of a guest: from one page of WebAssembly to all that its 32-bit addresses reach.
const GUEST_MEMORY: RangeInclusive<u64> = 64 * KIB..=4 * GIB;

/// Bounds of time-outs. Nobody waits longer than an hour for one call; such a value is a slip of the unit.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

/// Bounds of waits that may be switched off by 0.
const WAITS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// How often positions are written: beyond ten seconds, a crash would repeat too much.
const CURSOR_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);

/// How long what nobody needs is kept: nothing, or up to ten years, beyond which a unit was mistaken.
const RETENTIONS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10 * 366 * 24 * 3600);

/// Sizes that may be nothing.
const RETAINED: RangeInclusive<u64> = 0..=1024 * GIB;

/// How long ids of messages are remembered: nothing, or up to a week, beyond which no count of them would reach.
const DEDUP_WINDOWS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 24 * 3600);

/// When a message that waits is given up: below, an ordinary retry would not have its turn.
const AGES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10 * 366 * 24 * 3600);

/// Messages of a batch: as many as one lane can remember one by one that some are finished and some are not.
const BATCHES: RangeInclusive<usize> = 1..=MAX_RUNS;

/// When an agent counts as gone: below a second, ordinary pauses of a network would look like it.
const PRESENCE_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// How often a receiver ticks. More often than this is a loop, and belongs in the receiver.
const TICKS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// Bounds of the pauses of a quarantine. Beyond a day nobody would expect that anything is tried at all.
const QUARANTINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// Bounds of counts. A million of anything of one receiver or connection is a slip.
const COUNTS: RangeInclusive<usize> = 1..=1_000_000;

/// How deep values may nest: many JSON readers refuse more than 128, so receivers could not read them.
const DEPTHS: RangeInclusive<usize> = 1..=128;

/// Host objects of one instance: below, not even a page can be answered.
const RESOURCES: RangeInclusive<usize> = 16..=100_000;

/// Series of one receiver: a scrape with more of them than this takes seconds.
const METRIC_SERIES: RangeInclusive<usize> = 0..=10_000;

/// Threads for receivers; 0 stands for one per core.
const THREADS: RangeInclusive<usize> = 0..=1024;

/// Instances of receivers, or of requests to their pages, in all: each keeps a slot of the pool, and a slot is gigabytes of address space.
const POOL: RangeInclusive<usize> = 1..=10_000;

/// The longest name of a data type or receiver: names become folders and parts of addresses.
const MAX_NAME: usize = 64;

/// Checks the `text` of a configuration, as if it stood in `file`.
pub fn config(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { file: file.to_owned(), problems };
    let (document, errors) = DeTable::parse_recoverable(text);
    let problems = Problems::new(text);
    if !errors.is_empty() {
        for error in errors {
            let span = error.span().unwrap_or_default();
            let found = match text.get(span.clone()).unwrap_or_default() {
                "" => String::new(),
                found => format!("found {}, ", quote_text(found)),
            };
            problems.add(span.start, String::new(), format!("not TOML: {found}{}", error.message()));
        }
        return Err(invalid(problems.into_sorted()));
    }
    let config = config_of(&mut Table::root(&problems, document.get_ref()), file);
    match problems.into_sorted() {
        problems if problems.is_empty() => Ok(config),
        problems => Err(invalid(problems)),
    }
}

/// Reads the whole file. Where there are problems, the result is not to be used.
pub fn config_of(root: &mut Table<'_>, file: &Path) -> Config {
    let folder = file.parent().unwrap_or(Path::new(""));
    let data_dir =
        root.parsed("data-dir", folder.join("data"), "the path of a folder", |text| path(folder, text));
    let auth = root.parsed("auth", Auth::Off, "\"off\": there are no accounts yet", |text| {
        (text == "off").then_some(Auth::Off)
    });
    let listen = root.section("listen", |table| listen(table, auth));
    let limits = root.section("limits", limits);
    let log = root.section("log", log);
    let state = root.section("state", state);
    let presence = root.section("presence", presence);
    let host = root.section("host", host);
    let types = root.sections("types", data_type);
    if types.is_empty() {
        root.problem(
            "types",
            "found no data type, expected at least one, such as [types.system_metrics]".to_owned(),
        );
    }
    let mut instances = 0;
    let receivers = root.sections("receivers", |name, table| {
        let receiver = receiver(name, table, folder, &data_dir, &types, &host);
        if let Some(receiver) = &receiver {
            instances += receiver.instances;
            if instances > host.max_instances && instances - receiver.instances <= host.max_instances {
                table.problem(
                    "instances",
                    format!(
                        "found {}, which makes {instances} with the receivers before it in the order of names, expected at \
                         most {} together (host.max-instances)",
                        receiver.instances, host.max_instances
                    ),
                );
            }
        }
        receiver
    });
    root.refuse_unknown();

    // A receiver that could not be read is a problem by now, so that none is lost here.
    let receivers = receivers.into_iter().flatten().collect();
    Config {
        file: file.to_owned(),
        data_dir,
        auth,
        listen,
        limits,
        log,
        state,
        presence,
        host,
        types,
        receivers,
    }
}

fn listen(table: &mut Table<'_>, auth: Auth) -> Listen {
    let default = Listen::default();
    let mut address = |key, default: SocketAddr| {
        let expected = format!("an IP address with a port such as \"{default}\"");
        table.parsed(key, default, &expected, |text| text.parse().ok())
    };
    let agents = address("agents", default.agents);
    let admin = address("admin", default.admin);

    let is_loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    match auth {
        Auth::Off if !is_loopback(agents) => table.problem(
            "agents",
            format!(
                "found \"{agents}\", expected a loopback address such as \"127.0.0.1:4000\", because auth = \"off\" lets in \
                 whoever reaches it"
            ),
        ),
        Auth::Off => {}
    }
    if !is_loopback(admin) {
        table.problem(
            "admin",
            format!("found \"{admin}\", expected a loopback address such as \"127.0.0.1:4001\": it controls the server"),
        );
    }
    if agents == admin && agents.port() != 0 {
        let (key, other) = if table.has("admin") { ("admin", "agents") } else { ("agents", "admin") };
        table
            .problem(key, format!("found \"{admin}\", expected another address than that of listen.{other}"));
    }

    let hosts = table.texts(
        "allowed-hosts",
        "a host name, with its port if not the usual one, such as \"wharf.example\"",
        is_host,
    );
    let origins = table.texts("allowed-origins", "an origin such as \"https://wharf.example\"", is_origin);
    Listen {
        agents,
        admin,
        allowed_hosts: hosts
            .unwrap_or_default()
            .into_iter()
            .map(|host| host.value.to_ascii_lowercase())
            .collect(),
        allowed_origins: origins.unwrap_or_default().into_iter().map(|origin| origin.value).collect(),
    }
}

fn limits(table: &mut Table<'_>) -> Limits {
    let default = Limits::default();
    Limits {
        max_frame: table.size("max-frame", default.max_frame, FRAMES),
        max_connections: table.count("max-connections", default.max_connections, COUNTS),
        max_depth: table.count("max-depth", default.max_depth, DEPTHS),
        max_calls: table.count("max-calls", default.max_calls, COUNTS),
        max_unanswered: table.count("max-unanswered", default.max_unanswered, COUNTS),
        max_unanswered_bytes: table.size("max-unanswered-bytes", default.max_unanswered_bytes, SIZES),
        max_arriving_bytes: table.size("max-arriving-bytes", default.max_arriving_bytes, SIZES),
        frame_timeout: table.duration("frame-timeout", default.frame_timeout, TIMES),
        append_wait: table.duration("append-wait", default.append_wait, WAITS),
        request_timeout: table.duration("request-timeout", default.request_timeout, TIMES),
        shutdown_timeout: table.duration("shutdown-timeout", default.shutdown_timeout, TIMES),
    }
}

fn log(table: &mut Table<'_>) -> Log {
    let default = Log::default();
    Log {
        segment_size: table.size("segment-size", default.segment_size, SEGMENTS),
        queue_size: table.size("queue-size", default.queue_size, QUEUES),
        tail_size: table.size("tail-size", default.tail_size, SIZES),
        disk_reserve: table.size("disk-reserve", default.disk_reserve, RETAINED),
        absent_grace: table.duration("absent-grace", default.absent_grace, RETENTIONS),
    }
}

fn state(table: &mut Table<'_>) -> State {
    let default = State::default();
    State { cursor_interval: table.duration("cursor-interval", default.cursor_interval, CURSOR_INTERVALS) }
}

fn presence(table: &mut Table<'_>) -> Presence {
    let default = Presence::default();
    Presence {
        timeout: table.duration("timeout", default.timeout, PRESENCE_TIMEOUTS),
        max_agents: table.count("max-agents", default.max_agents, COUNTS),
    }
}

fn host(table: &mut Table<'_>) -> Host {
    let default = Host::default();
    Host {
        max_memory: table.size("max-memory", default.max_memory, GUEST_MEMORY),
        max_instances: table.count("max-instances", default.max_instances, POOL),
        threads: match table.count("threads", 0, THREADS) {
            0 => default.threads,
            threads => threads,
        },
        compile_memory: table.size("compile-memory", default.compile_memory, SIZES),
        compile_timeout: table.duration("compile-timeout", default.compile_timeout, TIMES),
        max_component: table.size("max-component", default.max_component, SIZES),
    }
}

fn data_type(name: &str, table: &mut Table<'_>) -> DataType {
    if !is_name(name, "_.-") {
        table.problem_here(format!(
            "found the name {}, expected 1 to {MAX_NAME} of a-z, 0-9, \"_\", \".\" and \"-\", beginning with a letter or digit",
            quote_text(name)
        ));
    }
    let durabilities = [("fsync", Durability::Fsync), ("os", Durability::Os), ("memory", Durability::Memory)];
    let default = DataType::new(name.to_owned());
    DataType {
        name: default.name,
        durability: table.choice("durability", default.durability, &durabilities),
        retain: table.duration("retain", default.retain, RETENTIONS),
        retain_bytes: table.size("retain-bytes", default.retain_bytes, RETAINED),
        dedup_window: table.duration("dedup-window", default.dedup_window, DEDUP_WINDOWS),
        dedup_messages: table.count("dedup-messages", default.dedup_messages, COUNTS),
    }
}

/// Reads a receiver; `None` if what it cannot do without is missing.
fn receiver(
    name: &str,
    table: &mut Table<'_>,
    folder: &Path,
    data_dir: &Path,
    types: &[DataType],
    host: &Host,
) -> Option<Receiver> {
    if !is_name(name, "-") {
        table.problem_here(format!(
            "found the name {}, expected 1 to {MAX_NAME} of a-z, 0-9 and \"-\", beginning with a letter or digit",
            quote_text(name)
        ));
    }
    let component = table.required("component", "the path of a component", |text| path(folder, text));
    if let Some(component) = &component
        && lexical(component).starts_with(lexical(data_dir))
    {
        table.problem(
            "component",
            format!("found {component:?}, expected a file outside the data directory {data_dir:?}, which is the server's own"),
        );
    }
    let types = mapping(table, types);
    let tick = table.has("tick").then(|| table.duration("tick", Duration::from_secs(10), TICKS));
    if tick.is_none() {
        table.absent("tick");
    }
    let max_age = table.has("max-age").then(|| table.duration("max-age", Duration::from_secs(3600), AGES));
    if max_age.is_none() {
        table.absent("max-age");
    }

    let default = Receiver::new(name.to_owned(), PathBuf::new(), Vec::new());
    let receiver = Receiver {
        name: default.name,
        component: component.clone().unwrap_or_default(),
        types,
        start: table.choice("start", default.start, &[("new", Start::New), ("oldest", Start::Oldest)]),
        live: table.switch("live", default.live),
        live_keys: table.count("live-keys", default.live_keys, COUNTS),
        live_bytes: table.size("live-bytes", default.live_bytes, SIZES),
        keyvalue: table.switch("keyvalue", default.keyvalue),
        keyvalue_bytes: table.size("keyvalue-bytes", default.keyvalue_bytes, SIZES),
        http: origins(table),
        outgoing_requests: table.count("outgoing-requests", default.outgoing_requests, POOL),
        outgoing_timeout: table.duration("outgoing-timeout", default.outgoing_timeout, TIMES),
        outgoing_body: table.size("outgoing-body", default.outgoing_body, SIZES),
        outgoing_answer: table.size("outgoing-answer", default.outgoing_answer, SIZES),
        files: folder_grants(table, folder),
        settings: table.free("config"),
        tick,
        encoding: table.choice(
            "encoding",
            default.encoding,
            &[("json", Encoding::Json), ("as-sent", Encoding::AsSent)],
        ),
        memory: table.size("memory", default.memory, GUEST_MEMORY),
        deadline: table.duration("deadline", default.deadline, TIMES),
        instances: table.count("instances", default.instances, 1..=LANES),
        max_messages: table.count("max-messages", default.max_messages, BATCHES),
        max_bytes: table.size("max-bytes", default.max_bytes, SIZES),
        max_wait: table.duration("max-wait", default.max_wait, WAITS),
        max_in_flight: table.count("max-in-flight", default.max_in_flight, COUNTS),
        max_parked: table.count("max-parked", default.max_parked, COUNTS),
        max_age,
        max_backlog: table.size("max-backlog", default.max_backlog, SEGMENTS),
        on_overflow: table.choice(
            "on-overflow",
            default.on_overflow,
            &[("block", OnOverflow::Block), ("shed", OnOverflow::Shed)],
        ),
        dead_letters: table.count("dead-letters", default.dead_letters, 0..=1_000_000),
        dead_letter_bytes: table.size("dead-letter-bytes", default.dead_letter_bytes, RETAINED),
        max_attempts: table.count("max-attempts", default.max_attempts, 1..=1_000_000),
        retry_pause: table.duration("retry-pause", default.retry_pause, TIMES),
        quarantine_failures: table.count("quarantine-failures", default.quarantine_failures, 1..=1_000_000),
        quarantine_percent: table.count("quarantine-percent", default.quarantine_percent, 1..=100),
        quarantine_pause: table.duration("quarantine-pause", default.quarantine_pause, QUARANTINES),
        quarantine_longest: table.duration("quarantine-longest", default.quarantine_longest, QUARANTINES),
        resources: table.count("resources", default.resources, RESOURCES),
        metric_series: table.count("metric-series", default.metric_series, METRIC_SERIES),
        http_concurrency: table.count("http-concurrency", default.http_concurrency, POOL),
        http_deadline: table.duration("http-deadline", default.http_deadline, TIMES),
        http_body: table.size("http-body", default.http_body, SIZES),
        log_lines: table.count("log-lines", default.log_lines, 1..=1_000_000),
        watch: table.switch("watch", default.watch),
        swap_timeout: table.duration("swap-timeout", default.swap_timeout, TIMES),
        probation: table.duration("probation", default.probation, WAITS),
        probation_failed_percent: table.count(
            "probation-failed-percent",
            default.probation_failed_percent,
            1..=100,
        ),
        probation_slowdown: table.count("probation-slowdown", default.probation_slowdown, 2..=1_000_000),
        probation_redrive: table.switch("probation-redrive", default.probation_redrive),
    };

    for (key, size, most, of) in [
        ("memory", receiver.memory, host.max_memory, "host.max-memory"),
        ("max-bytes", receiver.max_bytes, receiver.memory, "the receiver's memory"),
        ("http-body", receiver.http_body, receiver.memory, "the receiver's memory"),
    ] {
        if size > most {
            table.problem(
                key,
                format!("found {}, expected at most the {} of {of}", show_size(size), show_size(most)),
            );
        }
    }
    if receiver.max_messages > receiver.max_in_flight {
        table.problem(
            "max-messages",
            format!(
                "found {}, expected at most the receiver's max-in-flight of {}",
                receiver.max_messages, receiver.max_in_flight
            ),
        );
    }
    if receiver.quarantine_pause > receiver.quarantine_longest {
        table.problem(
            "quarantine-pause",
            format!(
                "found {}, expected at most the quarantine-longest of {}",
                humantime::format_duration(receiver.quarantine_pause),
                humantime::format_duration(receiver.quarantine_longest)
            ),
        );
    }
    if receiver.max_wait >= receiver.deadline {
        table.problem(
            "max-wait",
            format!(
                "found {}, expected less than the receiver's deadline of {}",
                humantime::format_duration(receiver.max_wait),
                humantime::format_duration(receiver.deadline)
            ),
        );
    }
    component.map(|_| receiver)
}

/// The origins that a receiver may send requests to.
fn origins(table: &mut Table<'_>) -> Vec<Origin> {
    let found = table
        .texts("http", "an origin such as \"https://api.example.com\"", |text| Origin::parse(text).is_some());
    found.unwrap_or_default().iter().filter_map(|origin| Origin::parse(&origin.value)).collect()
}

/// The folders that a receiver may use.
fn folder_grants(table: &mut Table<'_>, folder: &Path) -> Vec<FolderGrant> {
    let mut grants: Vec<FolderGrant> = Vec::new();
    table.records("files", |table| {
        let Some(grant) = folder_grant(table, folder) else { return };
        if grants.iter().any(|other| other.guest == grant.guest) {
            table.problem("guest", format!("found {:?} twice, expected each path once", grant.guest));
        }
        grants.push(grant);
    });
    grants
}

/// A folder that a receiver may use; `None` if what it cannot do without is missing.
fn folder_grant(table: &mut Table<'_>, folder: &Path) -> Option<FolderGrant> {
    const EXPECTED: &str = "an absolute path such as \"/out\", without \"..\", \"//\" or a \"/\" at its end";
    let host = table.required("host", "the path of a folder", |text| path(folder, text));
    let guest = table.required("guest", EXPECTED, |text| is_guest_path(text).then(|| text.to_owned()));
    let write = table.switch("write", false);
    Some(FolderGrant { host: host?, guest: guest?, write })
}

/// Whether a guest can have a folder at this path: absolute, and written in the one way in which guests look for it.
fn is_guest_path(text: &str) -> bool {
    let normal = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
    text.strip_prefix('/').is_some_and(|names| names.is_empty() || names.split('/').all(normal))
}

/// The data types that a receiver is mapped to.
fn mapping(table: &mut Table<'_>, types: &[DataType]) -> Vec<String> {
    const EXPECTED: &str = "the name of a data type";
    let known: Vec<_> = types.iter().map(|data_type| data_type.name.as_str()).collect();
    if !table.has("types") {
        table.problem_here("found no \"types\", expected a list of data types".to_owned());
    }
    let found = table.texts("types", EXPECTED, |_| true);
    if found.as_ref().is_some_and(Vec::is_empty) {
        table.problem("types", "found an empty list, expected at least one data type".to_owned());
    }
    let mut mapped: Vec<String> = Vec::new();
    for text in found.unwrap_or_default() {
        if known.is_empty() {
            // That there is no data type at all is a problem of its own.
        } else if !known.contains(&text.value.as_str()) {
            let quoted = quote_text(&text.value);
            let configured = alternatives(&known);
            table.problem_at(
                text.position,
                "types",
                format!("found {quoted}, expected a configured data type: {configured}"),
            );
        } else if mapped.contains(&text.value) {
            table.problem_at(
                text.position,
                "types",
                format!("found {:?} twice, expected each data type once", text.value),
            );
        } else {
            mapped.push(text.value);
        }
    }
    mapped
}

/// Whether a name consists of lower-case letters, digits and `punctuation`, begins with a letter or digit, and is not too long.
fn is_name(name: &str, punctuation: &str) -> bool {
    let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    name.len() <= MAX_NAME
        && name.starts_with(plain)
        && name.chars().all(|char| plain(char) || punctuation.contains(char))
}

/// Whether a `Host` header can be `text`. Nothing stands for any name: a list that lets in all would protect nobody.
fn is_host(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphanumeric() || ".-_:[]".contains(char))
        && text
            .parse::<Authority>()
            .is_ok_and(|authority| authority.host() == text || authority.port_u16().is_some())
}

fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
    })
}

/// A path of the file, seen from the folder that the file is in.
fn path(folder: &Path, text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| folder.join(text))
}

/// The path without `.` and `..`, as far as its text tells. Links are not followed: whoever opens the file sees to those.
fn lexical(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(result.components().next_back(), Some(Component::Normal(_))) => {
                result.pop();
            }
            component => result.push(component),
        }
    }
    result
}
