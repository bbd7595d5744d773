//! What the documents say about the repository is so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows these in test functions, and helpers are no less tests"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a document names as a path: `in/backticks.rs`, or [linked](to).
fn named_paths(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_path = |name: &&str| {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let rooted = fs::read_dir(root())
            .unwrap()
            .any(|entry| name.split('/').next() == entry.unwrap().file_name().to_str());
        plain && name.contains(['/', '.']) && (rooted || name.ends_with(".md"))
    };
    quoted.chain(linked).filter(is_path).map(str::to_owned).collect()
}

#[test]
fn every_path_that_the_documents_name_is_there() {
    let mut named = 0;
    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/algorithms.md",
        "docs/breakers.md",
        "docs/leases.md",
        "docs/outages.md",
        "docs/performance.md",
        PEERS,
    ];
    for document in documents {
        for path in named_paths(&read(document)) {
            // what is built is not in the repository
            if !path.starts_with("target/") {
                assert!(root().join(&path).exists(), "{document} names {path}, which is not there");
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} paths were found: the search itself is broken");
}

/// Which cases of other limiters went where.
const PEERS: &str = "tests/PEERS.md";

/// The sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_entry = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(of_entry).filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// The functions in a source whose names are sentences.
fn sentences(source: &Path) -> Vec<String> {
    let text = fs::read_to_string(source).unwrap();
    let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
    names.filter(|name| name.matches('_').count() >= 3).map(str::to_owned).collect()
}

#[test]
fn every_test_that_stands_for_a_case_of_a_peer_is_there_and_each_test_of_a_peer_stands_for_one() {
    let text = read(PEERS);
    let is_test = |name: &&str| {
        name.matches('_').count() >= 3 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 100, "only {} tests were found: the search itself is broken", named.len());
    let folders = ["cli", "engine", "plugin", "shim", "tests"];
    let known: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .flat_map(|path| sentences(&path))
        .collect();
    for name in &named {
        assert!(known.iter().any(|known| known == name), "{PEERS} names {name}, which is no test");
    }
    for name in sources(&root().join("tests/it/shim/peers")).iter().flat_map(|path| sentences(path)) {
        assert!(named.contains(&name.as_str()), "{name} stands for no case in {PEERS}");
    }
}

#[test]
fn the_readme_opens_with_the_policy_of_the_demo() {
    assert!(read("README.md").contains(&read("envoy/demo/policy.yaml")));
}

#[test]
fn every_script_says_what_it_takes_and_gives() {
    let scripts = fs::read_dir(root().join("lua")).unwrap().map(|entry| entry.unwrap().path());
    for script in scripts.filter(|path| path.extension().is_some_and(|extension| extension == "lua")) {
        let text = fs::read_to_string(&script).unwrap();
        let head: String = text.lines().take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS", "ARGV", "Returns"] {
            assert!(head.contains(word), "{} does not say its {word}", script.display());
        }
    }
}
