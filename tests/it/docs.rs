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
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/algorithms.md"] {
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
