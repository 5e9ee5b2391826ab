use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use wharf_host::FolderGrant;

use super::*;
use crate::config::Config;

/// A config in `conf`, data in `data`, a component in `components`, and folders `in` and `out`.
struct Site {
    dir: TempDir,
    config: Config,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["conf", "data/log", "components", "in", "out/inner"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let file = dir.path().join("conf/wharf.toml");
        fs::write(&file, "").unwrap();
        fs::write(dir.path().join("components/a.wasm"), "").unwrap();
        let text = "data-dir = '../data'\n[types.t]\n[receivers.a]\ncomponent = '../components/a.wasm'\ntypes = ['t']\n\
                    [receivers.b]\ncomponent = '../components/a.wasm'\ntypes = ['t']";
        Site { config: Config::parse(text, &file).unwrap(), dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn grant(&mut self, receiver: usize, path: &str, write: bool) {
        let (host, guest) = (self.path(path), format!("/{path}"));
        self.config.receivers[receiver].files.push(FolderGrant { host, guest, write });
    }

    /// What is wrong with the grant of one folder to receiver `a`.
    fn problems_of(&mut self, path: &str) -> Vec<PathProblem> {
        self.config.receivers[0].files.clear();
        self.grant(0, path, false);
        check(&self.config)
    }
}

#[test]
fn folders_apart_are_fine() {
    let mut site = Site::new();
    site.grant(0, "in", false);
    site.grant(0, "out", true);
    site.grant(1, "out", true);
    assert!(check(&site.config).is_empty(), "{:?}", check(&site.config));
}

#[test]
fn what_is_no_folder_is_named() {
    let mut site = Site::new();
    for path in ["missing", "conf/wharf.toml"] {
        let problems = site.problems_of(path);
        let text = problems[0].to_string();
        assert!(matches!(problems[..], [PathProblem::NoFolder { .. }]), "{problems:?}");
        assert!(text.starts_with("receivers.a.files: found ") && text.contains(path), "{text}");
    }
}

#[test]
fn what_is_the_servers_own_is_in_no_folder() {
    let mut site = Site::new();
    symlink(site.path("data/log"), site.path("link")).unwrap();
    symlink("link", site.path("link-to-link")).unwrap();
    for (path, expected) in [
        ("data", "data directory"),
        ("data/log", "data directory"),
        ("link", "data directory"),
        ("link-to-link", "data directory"),
        ("in/../data", "data directory"),
        ("conf", "the config"),
        ("components", r#"the component of receiver "b""#),
    ] {
        let problems = site.problems_of(path);
        assert!(
            problems.iter().all(|problem| matches!(problem, PathProblem::Overlap { .. })),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|problem| problem.to_string().contains(expected)),
            "{path}: {problems:?}"
        );
    }
    // All of it, twice the same component.
    assert_eq!(site.problems_of(".").len(), 4);
}

#[test]
fn links_in_a_folder_lead_to_nothing_of_the_servers() {
    let mut site = Site::new();
    for key in ["data", "conf/wharf.toml", "components/a.wasm"] {
        let link = site.path("in/link");
        symlink(site.path(key), &link).unwrap();
        // By a link from elsewhere to the link in the folder, which the receiver could replace if it may write there.
        symlink(&link, site.path("elsewhere")).unwrap();
        let outside = site.config.clone();
        match key {
            "data" => site.config.data_dir = site.path("elsewhere"),
            "conf/wharf.toml" => site.config.file = site.path("elsewhere"),
            _ => site.config.receivers[1].component = site.path("elsewhere"),
        }
        let problems = site.problems_of("in");
        assert!(matches!(problems[..], [PathProblem::Overlap { .. }]), "{key}: {problems:?}");
        site.config = outside;
        fs::remove_file(link).unwrap();
        fs::remove_file(site.path("elsewhere")).unwrap();
    }
}

#[test]
fn a_data_directory_that_is_yet_to_be_made_counts() {
    let mut site = Site::new();
    site.config.data_dir = site.path("in/new/data");
    let problems = site.problems_of("in");
    assert!(matches!(problems[..], [PathProblem::Overlap { .. }]), "{problems:?}");
}

#[test]
fn a_folder_that_a_receiver_could_replace_is_refused() {
    let mut site = Site::new();
    symlink(site.path("in"), site.path("out/link")).unwrap();
    for inner in ["out/inner", "out/link"] {
        site.config.receivers[1].files.clear();
        site.grant(1, "out", true);
        let problems = site.problems_of(inner);
        let text = problems[0].to_string();
        assert!(matches!(problems[..], [PathProblem::Replaceable { .. }]), "{problems:?}");
        assert!(text.contains(r#"receiver "b" may write there"#), "{text}");
        site.config.receivers[1].files[0].write = false;
        assert!(check(&site.config).is_empty(), "{inner}");
    }
}

#[test]
fn a_component_is_not_in_the_data_directory_by_a_link() {
    let mut site = Site::new();
    fs::write(site.path("data/a.wasm"), "").unwrap();
    symlink(site.path("data/a.wasm"), site.path("components/link.wasm")).unwrap();
    symlink(site.path("data"), site.path("components/folder")).unwrap();
    for path in ["components/link.wasm", "components/folder/a.wasm", "data/a.wasm"] {
        site.config.receivers[0].component = site.path(path);
        let problems = check(&site.config);
        let text = problems[0].to_string();
        assert!(matches!(problems[..], [PathProblem::ComponentInDataDir { .. }]), "{problems:?}");
        assert!(text.starts_with("receivers.a.component: found ") && text.contains(path), "{text}");
    }
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let mut site = Site::new();
    symlink(site.path("two"), site.path("one")).unwrap();
    symlink(site.path("one"), site.path("two")).unwrap();
    let problems = site.problems_of("one");
    assert!(matches!(problems[..], [PathProblem::NoFolder { .. }]), "{problems:?}");
}
