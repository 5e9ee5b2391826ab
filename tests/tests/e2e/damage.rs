//! Damage to every kind of file of a data directory: the server recovers what is whole and says what it lost, or refuses to
//! start and says how to go on. It never serves anything that was altered, and the doctor foretells what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use e2e::calls::{data, data_of, success};
use e2e::tree::{copy, files_in};
use e2e::{Agent, Config, Encoding, Log, Seen, Server, Site, Tree, eventually, files};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How many damages are tried for each kind of file, unless the variable says otherwise.
const ROUNDS: usize = 2;
const ROUNDS_VARIABLE: &str = "WHARF_DAMAGE_ROUNDS";
/// The damages of a test are the same with each run, unless the variable says otherwise.
const SEED: u64 = 4;
const SEED_VARIABLE: &str = "WHARF_DAMAGE_SEED";

/// Enough for three segments.
const MESSAGES: u64 = 640;
const PADDING: usize = 4_000;
const BATCH: u64 = 20;
const AGENTS: [&str; 3] = ["a", "b", "c"];
/// Values that a receiver keeps.
const VALUES: u64 = 20;

fn config() -> Config {
    Config::new()
        .set("log.segment-size", "1MiB")
        .data_type("orders")
        .receiver("prompt", &files::guest("recorder"), &["metrics"])
        .receiver("late", &files::guest("recorder"), &["metrics"])
        .receiver("held", &files::guest("quiet"), &["metrics"])
        .receiver("keeper", &files::guest("keyvalue"), &["orders"])
        .set("receivers.keeper.keyvalue", true)
}

fn body(number: u64) -> Value {
    json!({ "number": number, "padding": char::from(b'a' + (number % 26) as u8).to_string().repeat(PADDING) })
}

fn value(number: u64) -> String {
    format!("value {number} {}", "v".repeat(200))
}

/// A data directory with everything in it: several segments, receivers that have finished all and nothing, values, marks.
struct Template {
    _folder: TempDir,
    data: PathBuf,
    killed: bool,
    /// Everything that was sent: its offset and what it was.
    sent: BTreeMap<u64, Seen>,
}

impl Template {
    async fn make(killed: bool) -> Template {
        let mut site = Site::new(config().receiver("gone", &files::guest("quiet"), &["orders"]));
        let server = site.start().await;
        let admin = format!("http://{}", server.admin);
        for receiver in ["late", "held"] {
            assert_eq!(site.run(&["pause", receiver, "--admin", &admin]).await.code, Some(0));
        }
        send(&server, 0..MESSAGES / 2).await;
        let mut agent = Agent::connect(server.agents).await;
        for number in 0..VALUES {
            let order = json!({ "do": "set", "key": format!("key {number}"), "value": value(number) });
            assert_eq!(agent.call(Encoding::Json, &data_of("orders", "a", order)).await, success());
        }
        let mut seen = server.log.wait_seen("prompt", MESSAGES as usize / 2).await;
        finished(&server, "keeper").await;
        server.stop().await;
        // A second run, so that there are tables as well as journals, and without one of the receivers.
        site.change(|_| config());
        let server = site.start().await;
        send(&server, MESSAGES / 2..MESSAGES).await;
        seen.extend(server.log.wait_seen("prompt", MESSAGES as usize / 2).await);
        finished(&server, "prompt").await;
        if killed {
            server.kill().await;
        } else {
            server.stop().await;
        }
        let folder = tempfile::tempdir().unwrap();
        let copied = folder.path().join("data");
        copy(&site.data(), &copied);
        let sent: BTreeMap<_, _> = seen.into_iter().map(|seen| (seen.offset, seen)).collect();
        assert_eq!(sent.len() as u64, MESSAGES);
        Template { _folder: folder, data: copied, killed, sent }
    }

    /// The files by what they are. Of some there are several.
    fn kinds(&self) -> BTreeMap<&'static str, Vec<PathBuf>> {
        let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let files = files_in(&self.data);
        let last = files.iter().rfind(|path| kind(path) == Some("segment") && is_of(path, "metrics"));
        for path in &files {
            let Some(mut kind) = kind(path) else { continue };
            if kind == "segment" && Some(path) == last {
                kind = "last segment";
            }
            // The other topics have as little as the first has much.
            if !kind.contains("segment") || is_of(path, "metrics") {
                kinds.entry(kind).or_default().push(path.strip_prefix(&self.data).unwrap().to_owned());
            }
        }
        kinds
    }
}

fn is_of(path: &Path, topic: &str) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with(topic))
}

/// What a file of a data directory is; nothing for those whose contents mean nothing.
fn kind(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let in_guests = path.components().any(|part| part.as_os_str() == "guests");
    let of = |state, guests| Some(if in_guests { guests } else { state });
    match name {
        "LOCK" | "lock" | ".lock" | "BALLAST" => None,
        "FORMAT" | "RUNNING" | "PAUSED" | "RECEIVERS" | "ABSENT" => {
            ["FORMAT", "RUNNING", "PAUSED", "RECEIVERS", "ABSENT"].into_iter().find(|known| *known == name)
        }
        "bound" => Some("bound"),
        "version" => of("version of state", "version of guests"),
        "current" => of("current of state", "current of guests"),
        _ if ending == Some("seg") => Some("segment"),
        _ if ending == Some("cwasm") => Some("compiled component"),
        _ if ending == Some("wasm") => Some("component"),
        _ if ending == Some("jnl") => of("journal of state", "journal of guests"),
        _ if folder.ends_with("tables") => of("table of state", "table of guests"),
        _ if name.starts_with('v') => of("manifest of state", "manifest of guests"),
        _ => panic!("{path:?} is of no known kind: damage it here as well"),
    }
}

async fn send(server: &Server, numbers: Range<u64>) {
    let mut agent = Agent::connect(server.agents).await;
    let numbers: Vec<_> = numbers.collect();
    for numbers in numbers.chunks(BATCH as usize) {
        let call = |number: &u64| data(AGENTS[*number as usize % AGENTS.len()], body(*number));
        let answer = agent.call(Encoding::Json, &numbers.iter().map(call).collect()).await;
        assert_eq!(answer["result"], "success", "{answer}");
    }
}

async fn finished(server: &Server, receiver: &str) {
    let has = async || (server.receiver(receiver).await["lag"] == 0).then_some(());
    eventually(&format!("{receiver} to finish everything"), has).await;
}

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flipped { byte: usize, bit: u32 },
    Cut { length: usize },
}

impl Damage {
    /// At a place that has a meaning: not in the zeros at the end of a journal.
    fn any(random: &mut StdRng, flip: bool, content: usize) -> Damage {
        match content {
            0 => Damage::Cut { length: 0 },
            _ if flip => {
                Damage::Flipped { byte: random.random_range(0..content), bit: random.random_range(0..8) }
            }
            _ => Damage::Cut { length: random.random_range(0..content) },
        }
    }

    fn inflict(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        match self {
            Damage::Flipped { byte, bit } => bytes[byte] ^= 1 << bit,
            Damage::Cut { length } => bytes.truncate(length),
        }
        fs::write(path, bytes).unwrap();
    }
}

fn content(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1)
}

fn number_in(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_any_file_is_told_and_nothing_altered_is_served() {
    let rounds = number_in(ROUNDS_VARIABLE).map_or(ROUNDS, |rounds| rounds as usize);
    let mut random = StdRng::seed_from_u64(number_in(SEED_VARIABLE).unwrap_or(SEED));
    let templates = tokio::join!(Template::make(false), Template::make(true));
    let templates = [templates.0, templates.1];
    let names: BTreeSet<_> = templates.iter().flat_map(|template| template.kinds().into_keys()).collect();
    // Tables are there as soon as the databases find the time.
    for name in [
        "FORMAT",
        "PAUSED",
        "RECEIVERS",
        "ABSENT",
        "RUNNING",
        "segment",
        "last segment",
        "bound",
        "journal of state",
        "manifest of state",
        "journal of guests",
        "manifest of guests",
        "compiled component",
        "component",
    ] {
        assert!(names.contains(name), "there is no {name}: {names:?}");
    }
    let mut damages = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let candidates: Vec<_> =
            templates.iter().filter(|template| template.kinds().contains_key(name)).collect();
        for round in 0..rounds {
            // Each kind flipped and cut, of a directory that was stopped and of one that was killed.
            let template = candidates[(index + round / 2) % candidates.len()];
            let paths = &template.kinds()[name];
            let path = paths[random.random_range(0..paths.len())].clone();
            let damage = Damage::any(&mut random, round % 2 == 0, content(&template.data.join(&path)));
            damages.push((template, *name, path, damage));
        }
    }
    damages.shuffle(&mut random);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    // Two at a time: one computes while the other waits for the disk.
    for pair in damages.chunks(2) {
        let told = match pair {
            [one, other] => {
                let (one, other) = tokio::join!(try_one(one), try_one(other));
                vec![one, other]
            }
            [one] => vec![try_one(one).await],
            _ => vec![],
        };
        for outcome in told {
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    println!("{outcomes:?}");
    for outcome in ["refused", "lost", "nothing lost"] {
        assert!(outcomes.contains_key(outcome), "no damage came to that: {outcomes:?}");
    }
}

async fn try_one((template, kind, path, damage): &(&Template, &str, PathBuf, Damage)) -> &'static str {
    let what = format!("{kind} {} {damage:?}, killed: {}", path.display(), template.killed);
    let site = Site::new(config());
    copy(&template.data, &site.data());
    damage.inflict(&site.data().join(path));
    let doctor = diagnose(&site, &what).await;
    let started = site.start_unawaited();
    let listening = |line: &str| line.starts_with("listening admin").then_some(());
    if started.stdout.find("the server to listen or to end", listening).await.is_none() {
        let mut started = started;
        let status = started.ended().await;
        let log = started.log.lines().join("\n");
        assert_eq!(status.code(), Some(1), "{what}: {log}");
        let error =
            log.lines().rfind(|line| line.starts_with("wharf: ")).unwrap_or_else(|| panic!("{what}: {log}"));
        // The database does not always say which of its files it is.
        let folder = path.components().next().unwrap().as_os_str().to_str().unwrap();
        let named = path.file_name().unwrap().to_str().unwrap();
        assert!(
            error.contains(named) || error.contains(&format!("data/{folder}")),
            "{what} is not named: {error}"
        );
        let advice = ["restore", "remove it", "move ", "run the version"];
        assert!(
            advice.iter().any(|advice| error.contains(advice)),
            "{what}: {error} does not say how to go on"
        );
        assert_eq!(
            doctor["whole"], false,
            "{what}: the doctor did not foretell that the start is refused: {doctor:#}"
        );
        return "refused";
    }
    let server = Server::listening(started).await;
    let admin = format!("http://{}", server.admin);
    assert_eq!(server.receiver("held").await["state"], "paused", "{what}");
    let resumed = site.run(&["resume", "late", "--admin", &admin]).await;
    assert_eq!(resumed.code, Some(0), "{what}: {resumed:?}");
    finished(&server, "late").await;
    check_values(&server, &doctor, &what).await;
    let log = server.stop().await;
    check_messages(template, &log, &doctor, &what)
}

/// What the doctor says, after checking that it changed nothing.
async fn diagnose(site: &Site, what: &str) -> Value {
    let before = Tree::of(&site.data());
    let doctor = site.run(&["doctor", "data", "--json"]).await;
    assert!(Tree::of(&site.data()) == before, "{what}: the doctor changed something");
    let report: Value =
        serde_json::from_str(&doctor.stdout).unwrap_or_else(|error| panic!("{what}: {error}: {doctor:?}"));
    assert_eq!(doctor.code, Some(if report["whole"] == true { 0 } else { 1 }), "{what}: {doctor:?}");
    report
}

/// Whether what the receiver kept is what it gets back, or missing with a word.
async fn check_values(server: &Server, doctor: &Value, what: &str) {
    let mut agent = Agent::connect(server.agents).await;
    for number in [0, VALUES - 1] {
        let order = json!({ "do": "get", "key": format!("key {number}") });
        assert_eq!(agent.call(Encoding::Json, &data_of("orders", "b", order)).await, success(), "{what}");
        let told = server.log.until("what came of an order", |line| {
            let words =
                [format!("value {number} "), "None".to_owned(), "can't".to_owned(), "failed".to_owned()];
            (line.contains("dead letter") && words.iter().any(|word| line.contains(word)))
                .then(|| line.to_owned())
        });
        let told = told.await;
        if !told.contains(&format!("Some(\\\"{}\\\")", value(number))) && !told.contains(&value(number)) {
            let findings = doctor["findings"].as_array().unwrap();
            let is_foretold =
                findings.iter().any(|finding| finding["file"].as_str().unwrap().contains("guests"));
            assert!(is_foretold, "{what}: {told}, and the doctor did not say so: {doctor:#}");
        }
    }
}

/// Whether the late receiver got what was sent, unaltered, but for what was said to be lost, and that the doctor foretold.
fn check_messages(template: &Template, log: &Log, doctor: &Value, what: &str) -> &'static str {
    let mut missing: BTreeSet<u64> = template.sent.keys().copied().collect();
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for seen in log.seen("late") {
        let sent =
            template.sent.get(&seen.offset).unwrap_or_else(|| panic!("{what}: {seen:?} was never sent"));
        let same = Seen { redelivery: sent.redelivery.clone(), ..seen.clone() };
        assert_eq!(same, *sent, "{what}: altered");
        assert!(missing.remove(&seen.offset), "{what}: {} came twice", seen.offset);
        let before = latest.insert(seen.agent.clone(), seen.offset);
        assert!(before.is_none_or(|before| before < seen.offset), "{what}: {seen:?} after {before:?}");
    }
    if missing.is_empty() {
        return "nothing lost";
    }
    let cut = |text: &str| text.contains("half-written");
    let told: Vec<_> =
        log.lines().into_iter().filter(|line| line.contains("log.lost") || cut(line)).collect();
    let is_told =
        |offset: &u64| told.iter().flat_map(|line| ranges(line)).any(|range| range.contains(offset));
    let findings = doctor["findings"].as_array().unwrap();
    let foretold: Vec<Range<u64>> = findings
        .iter()
        .filter_map(|finding| finding["lost"]["offsets"].as_array())
        .flatten()
        .map(|range| range["start"].as_u64().unwrap()..range["end"].as_u64().unwrap())
        .collect();
    // Of a cut end whose headers are damaged, the offsets can't be told.
    let is_cut =
        told.iter().any(|line| cut(line)) && findings.iter().any(|of| cut(of["found"].as_str().unwrap()));
    let last = template.sent.keys().rfind(|offset| !missing.contains(offset)).copied();
    for offset in &missing {
        let is_end = is_cut && last.is_none_or(|last| *offset > last);
        assert!(is_end || is_told(offset), "{what}: {offset} is missing and not told: {told:#?}");
        let is_foretold = foretold.iter().any(|range| range.contains(offset));
        assert!(
            is_end || is_foretold,
            "{what}: {offset} is missing, and the doctor did not say so: {doctor:#}"
        );
    }
    "lost"
}

/// Every range in a line of a log, as in `12..15`.
fn ranges(line: &str) -> Vec<Range<u64>> {
    let number = |text: &str| text.parse::<u64>().ok();
    let words = line.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    words.filter_map(|word| word.split_once("..")).filter_map(|(a, b)| Some(number(a)?..number(b)?)).collect()
}
