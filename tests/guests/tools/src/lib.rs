//! Uses what every receiver has, and the folders that it was granted, as the body of a message says: `{"do": "read", "path":
//! "/in/a"}` and so on, see [`Order`]. What came of it is printed.

use std::fmt::Debug;
use std::fs;
use std::io::Read;

use serde::Deserialize;

use exports::wharf::receiver::handler::Guest;
use wasi::cli::environment;
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::config::store;
use wasi::filesystem::preopens;
use wasi::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasi::logging::logging::{self, Level};
use wasi::random::{insecure, insecure_seed, random};
use wharf::receiver::metrics::{self, Label};
use wharf::receiver::types::{Batch, Body, Failure};

wit_bindgen::generate!({
    inline: "
        package wharf:tools;

        world tools {
            include wharf:receiver/base@0.1.0;
            import wasi:cli/environment@0.2.12;
            import wasi:clocks/monotonic-clock@0.2.12;
            import wasi:clocks/wall-clock@0.2.12;
            import wasi:filesystem/preopens@0.2.12;
            import wasi:random/random@0.2.12;
            import wasi:random/insecure@0.2.12;
            import wasi:random/insecure-seed@0.2.12;
        }
    ",
    path: "../../../wit",
    generate_all,
});

/// What a body can order.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Order {
    /// Prints the settings, from the store and from the environment.
    Settings,
    /// Prints one setting from the store.
    Setting { key: String },
    /// Logs a message, several times.
    Log { level: String, context: String, message: String, times: u32 },
    /// Panics.
    Trap,
    /// Adds to a counter.
    Count { name: String, labels: Vec<(String, String)>, by: u64 },
    /// Sets a gauge, to what is no number if there is none.
    Set { name: String, value: Option<f64> },
    /// Records a value in a histogram.
    Observe { name: String, values: Vec<f64> },
    /// Counts under so many values of a label.
    Series { name: String, number: u32 },
    /// Writes a file.
    Write { path: String, text: String },
    /// Prints a file.
    Read { path: String },
    /// Prints the names in a folder.
    List { path: String },
    /// Removes a file.
    Remove { path: String },
    /// Makes a link in the first folder, by the names as they are.
    Link { target: String, path: String },
    /// Opens a file so often and keeps it open.
    Open { path: String, times: u32 },
    /// Begins so many listings of a folder and keeps them.
    Listings { path: String, times: u32 },
    /// Makes so many files.
    Fill { path: String, number: u32 },
    /// Writes so many bytes to a file in the first folder at once, without asking whether there is room.
    Pour { path: String, bytes: usize },
    /// Prints whatever can be seen of the host.
    Look,
}

struct Tools;

impl Guest for Tools {
    fn handle(batch: Batch) -> Vec<Failure> {
        for message in &batch.messages {
            let Body::Json(text) = &message.body else { continue };
            obey(serde_json::from_str(text).expect("a body is an order"));
        }
        Vec::new()
    }
}

fn obey(order: Order) {
    match order {
        Order::Settings => {
            let mut all = store::get_all().expect("settings are there");
            all.sort();
            println!("store {all:?}");
            println!("environment {:?}", std::env::vars().collect::<Vec<_>>());
        }
        Order::Setting { key } => println!("setting {:?}", store::get(&key).expect("settings are there")),
        Order::Log { level, context, message, times } => {
            let level = match level.as_str() {
                "trace" => Level::Trace,
                "debug" => Level::Debug,
                "info" => Level::Info,
                "warn" => Level::Warn,
                "error" => Level::Error,
                _ => Level::Critical,
            };
            for _ in 0..times {
                logging::log(level, &context, &message);
            }
        }
        Order::Trap => panic!("told to trap"),
        Order::Count { name, labels, by } => {
            let labels: Vec<_> = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
            metrics::count(&name, &labels, by);
        }
        Order::Set { name, value } => metrics::set(&name, &[], value.unwrap_or(f64::NAN)),
        Order::Observe { name, values } => {
            values.into_iter().for_each(|value| metrics::observe(&name, &[], value));
        }
        Order::Series { name, number } => {
            for value in 0..number {
                metrics::count(&name, &[Label { name: "number".into(), value: value.to_string() }], 1);
            }
        }
        Order::Write { path, text } => say("write", fs::write(path, text)),
        Order::Read { path } => say("read", fs::read_to_string(path)),
        Order::List { path } => say("list", names(&path)),
        Order::Remove { path } => say("remove", fs::remove_file(path)),
        Order::Link { target, path } => say("link", first_folder().symlink_at(&target, &path)),
        Order::Open { path, times } => open(&path, times),
        Order::Listings { path, times } => {
            let kept: Vec<_> = (0..times).map_while(|_| fs::read_dir(&path).ok()).collect();
            println!("listings {}", kept.len());
        }
        Order::Fill { path, number } => {
            (0..number).for_each(|name| fs::write(format!("{path}/{name}"), "").expect("there is room"));
        }
        Order::Pour { path, bytes } => {
            let file = first_folder()
                .open_at(PathFlags::empty(), &path, OpenFlags::CREATE, DescriptorFlags::WRITE)
                .expect("the folder may be written to");
            let stream = file.write_via_stream(0).expect("the file may be written to");
            say("pour", stream.write(&vec![0; bytes]));
        }
        Order::Look => look(),
    }
}

fn say<T: Debug, E: Debug>(what: &str, outcome: Result<T, E>) {
    println!("{what} {outcome:?}");
}

fn names(path: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn open(path: &str, times: u32) {
    let mut kept = Vec::new();
    for _ in 0..times {
        match fs::File::open(path) {
            Ok(file) => kept.push(file),
            Err(error) => {
                println!("open {} {error:?}", kept.len());
                return;
            }
        }
    }
    let mut text = String::new();
    let read = kept.iter_mut().all(|file| file.read_to_string(&mut text).is_ok());
    println!("open {} {read}", kept.len());
}

fn first_folder() -> Descriptor {
    preopens::get_directories().into_iter().next().expect("a folder was granted").0
}

fn look() {
    println!("variables {:?}", environment::get_environment());
    println!("arguments {:?}", environment::get_arguments());
    println!("current folder {:?}", environment::initial_cwd());
    let folders: Vec<_> = preopens::get_directories().into_iter().map(|(_, name)| name).collect();
    println!("folders {folders:?}");
    println!("monotonic {}", monotonic_clock::now());
    println!("wall {}", wall_clock::now().seconds);
    println!("random {:?}", random::get_random_bytes(16));
    println!("insecure {:?} {:?}", insecure::get_insecure_random_bytes(16), insecure_seed::insecure_seed());
}

export!(Tools);
