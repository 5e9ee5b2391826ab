//! The cache of compiled components, and the process that fills it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_host::{Compiler, Host, HostOptions, LoadError};

use crate::fixtures::{Fixture, batch, chain, compiler, guest, options};

/// A compiler that always fails, for loads that must not need one.
fn no_compiler() -> Compiler {
    Compiler { program: "/bin/false".into(), args: Vec::new() }
}

fn shell(script: &str) -> Compiler {
    Compiler { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] }
}

/// A second host on the same cache.
fn host(fixture: &Fixture, compiler: Compiler) -> Host {
    Host::new(HostOptions { max_instances: 1, max_pages: 1, ..HostOptions::new(cache(fixture), compiler) })
        .unwrap()
}

fn cache(fixture: &Fixture) -> PathBuf {
    fixture.dir.path().join("cache")
}

fn artifacts(fixture: &Fixture) -> Vec<PathBuf> {
    std::fs::read_dir(cache(fixture)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

async fn works(host: &Host) {
    let mut instance = host.load(options("puppet")).await.unwrap().instantiate().await.unwrap();
    assert_eq!(instance.handle(&batch(&["{}"])).await.unwrap(), []);
}

#[tokio::test]
async fn a_component_is_compiled_once() {
    let fixture = Fixture::new();
    let puppet = fixture.load("puppet").await;
    let [artifact] = artifacts(&fixture).try_into().unwrap();
    let name = artifact.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("{}-", puppet.digest())) && name.ends_with(".cwasm"), "{name}");
    works(&host(&fixture, no_compiler())).await;
}

#[tokio::test]
async fn a_damaged_artifact_is_compiled_again() {
    let fixture = Fixture::new();
    fixture.load("puppet").await;
    let [artifact] = artifacts(&fixture).try_into().unwrap();
    let whole = std::fs::read(&artifact).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let damaged: [&[u8]; 4] = [&[], &whole[..20], &whole[..whole.len() - 1], &flipped];
    for bytes in damaged {
        std::fs::write(&artifact, bytes).unwrap();
        let error = host(&fixture, no_compiler()).load(options("puppet")).await.err().unwrap();
        assert!(matches!(error, LoadError::Compile { .. }), "{error:?}");
        works(&host(&fixture, compiler())).await;
        assert_eq!(std::fs::read(&artifact).unwrap(), whole);
    }
}

#[tokio::test]
async fn several_loads_at_a_time_compile_once() {
    let fixture = Fixture::new();
    let log = fixture.file("log", "");
    let real = compiler().program;
    let script = format!("echo x >> {}; exec {} \"$@\"", log.display(), real.display());
    let host = host(&fixture, Compiler { args: vec!["-c".into(), script, "sh".into()], ..shell("") });
    let (one, two, three) = tokio::join!(
        host.load(options("puppet")),
        host.load(options("puppet")),
        host.load(options("recorder"))
    );
    one.and(two).and(three).unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "x\nx\n");
}

#[tokio::test]
async fn nothing_is_left_of_a_compiler_that_fails() {
    let fixture = Fixture::new();
    for script in
        ["echo 'a word of the compiler' >&2; exit 3", "kill -9 $$", "yes | head -c 1000000 >&2; exit 1"]
    {
        let error = host(&fixture, shell(script)).load(options("puppet")).await.err().unwrap();
        assert!(matches!(error, LoadError::Compile { .. }) && error.to_string().len() < 5000, "{error:?}");
        assert_eq!(artifacts(&fixture), Vec::<PathBuf>::new());
    }
    let error =
        host(&fixture, shell("echo 'a word' >&2; exit 3")).load(options("puppet")).await.err().unwrap();
    assert!(error.to_string().contains("a word;"), "{error}");
    let error = host(&fixture, no_compiler()).load(options("puppet")).await.err().unwrap();
    assert!(error.to_string().contains("the compiler ended with exit status: 1"), "{error}");
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_killed() {
    let fixture = Fixture::with(|options| {
        options.compile_timeout = Duration::from_millis(200);
        options.compiler = shell("echo $$ > \"${2%/*}/../../pid\"; exec sleep 60");
        options.compiler.args.push("sh".into());
    });
    let error = fixture.host.load(options("puppet")).await.err().unwrap();
    assert!(matches!(error, LoadError::CompileTimeout { .. }), "{error:?}");
    let pid = std::fs::read_to_string(fixture.dir.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "process {pid} lives");
}

#[tokio::test]
async fn a_compiler_that_takes_too_much_memory_is_told_from_others() {
    // The first is too little to start, the second to finish.
    for memory in [4 << 20, 12 << 20] {
        let fixture = Fixture::with(|options| options.compile_memory = memory);
        let error = fixture.host.load(options("puppet")).await.err().unwrap();
        assert!(matches!(error, LoadError::CompileMemory { limit, .. } if limit == memory), "{error:?}");
    }
}

#[tokio::test]
async fn a_missing_compiler_is_named() {
    let fixture = Fixture::new();
    let compiler = Compiler { program: "/nowhere/compiler".into(), args: Vec::new() };
    let error = host(&fixture, compiler).load(options("puppet")).await.err().unwrap();
    assert!(matches!(error, LoadError::CompilerStart { .. }), "{error:?}");
    assert!(chain(&error).contains("/nowhere/compiler") && chain(&error).contains("No such file"), "{error}");
}

#[tokio::test]
async fn the_compiler_does_not_see_the_environment() {
    let fixture = Fixture::new();
    // `PATH` is set in every environment that runs tests.
    assert!(std::env::var_os("PATH").is_some());
    let script = "read -r environment < /proc/self/environ; echo \"[$environment]\" >&2; exit 1";
    let error = host(&fixture, shell(script)).load(options("puppet")).await.err().unwrap();
    assert!(error.to_string().contains("[]"), "{error}");
    assert!(guest("puppet").exists());
}
