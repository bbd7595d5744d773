//! `lanekeeper check` as a process: what it prints and how it exits.
// clippy.toml allows these in tests, but does not know the functions that tests share.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

mod breakers;

/// The files of one test, in a folder of its own.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn check(&self, arguments: &[&str]) -> Run {
        lanekeeper(self.0.path(), &[&["check"], arguments].concat(), "")
    }
}

#[derive(Debug, PartialEq)]
struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

fn lanekeeper(folder: &Path, arguments: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { status: status.code(), out: text(stdout), err: text(stderr) }
}

/// Holds that checking `yaml` ends with this status and prints these lines.
#[track_caller]
fn check(yaml: &str, status: i32, out: &[&str]) {
    let run = Files::new(&[("policy.yaml", yaml)]).check(&["policy.yaml"]);
    let out: String = out.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(run, Run { status: Some(status), out, err: String::new() });
}

const GOOD: &str = "\
version: 1
lanes:
  shadow:
    flag: [{header: x-shadow, values: [\"true\"]}]
    trust: [everyone]
commands:
  - {command: account.get, match: {grpc: account.Account/Get}}
rate_limits:
  ads:
    keys: {per_user: {header: x-user}, per_ip: ip}
    windows: [{limit: 100, per: 60s}, {limit: 1000, per: 24h}]
  default_rate_limit: &default
    keys: {everyone: {constant: global}}
    windows: [{limit: 10, per: 1s}]
  second:
    <<: *default
    match: {command: [account.get]}
  shadow_ads:
    windows: [{limit: 5000, per: 1m}]
  shadow_rate_limit:
    windows: [{limit: 1, per: 1s}]
";

#[test]
fn a_good_policy_is_summed_up() {
    check(
        GOOD,
        0,
        &[
            "policy.yaml: good: lanes normal, shadow; 3 limits, 1 command",
            "  ads: 100 per 1m and 1000 per 1d by per_ip, per_user",
            "    shadow: shadow_ads: 5000 per 1m by per_ip, per_user",
            "  default_rate_limit: 10 per 1s by everyone",
            "    shadow: shadow_rate_limit: 1 per 1s by everyone",
            "  second: 10 per 1s by everyone",
            "    shadow: normal values, own counters",
        ],
    );
    check(
        &GOOD.replace("trust: [everyone]", "trust: [everyone]\n    fallback: share\n    enabled: false"),
        0,
        &[
            "policy.yaml: good: lanes normal, shadow; 3 limits, 1 command",
            "  ads: 100 per 1m and 1000 per 1d by per_ip, per_user",
            "    shadow: shadow_ads: 5000 per 1m by per_ip, per_user (the lane is disabled)",
            "  default_rate_limit: 10 per 1s by everyone",
            "    shadow: shadow_rate_limit: 1 per 1s by everyone (the lane is disabled)",
            "  second: 10 per 1s by everyone",
            "    shadow: shares the normal limit and its counters (the lane is disabled)",
        ],
    );
    let spread = GOOD.replace("    <<: *default", "    <<: *default\n    shards: 8\n    consume: on_success");
    let spread = Files::new(&[("p.yaml", &spread)]).check(&["p.yaml"]).out;
    assert!(
        spread.contains("  second: 10 per 1s by everyone, in 8 shards, charged on success\n"),
        "{spread}"
    );
    let rejecting =
        Files::new(&[("p.yaml", &GOOD.replace("[everyone]", "[everyone]\n    fallback: reject"))]);
    assert!(rejecting.check(&["p.yaml"]).out.ends_with("    shadow: turned away\n"));
}

#[test]
fn every_error_is_told_with_its_line() {
    check(
        "version: 1\n\
         rate_limits:\n  \
           ads:\n    \
             keys: {per_user: {header: X-User}}\n    \
             windows:\n    \
             - limit: 0\n      \
               per: 1x\n    \
             windws: []\n  \
           other:\n    \
             keys: {k: ip}\n",
        1,
        &[
            "policy.yaml:8: rate_limits.ads.windws: []: is an unknown field; allowed: match, except, key_prefix, keys, \
             hash_tag, windows, algorithm, cost, consume, on_missing_key, enforce, shards and 2 more; \
             did you mean `windows`?",
            "policy.yaml:4: rate_limits.ads.keys.per_user.header: \"X-User\": must be lower-case: `x-user`",
            "policy.yaml:6: rate_limits.ads.windows[0].limit: 0: must be a whole number from 1 to 1000000000",
            "policy.yaml:7: rate_limits.ads.windows[0].per: \"1x\": must be a duration from 1ms to 366d: a whole number \
             and its unit, ms, s, m, h or d",
            "policy.yaml:9: rate_limits.other.windows: is required: how many requests in how long, as in \
             [{limit: 100, per: 1m}]",
            "5 errors",
        ],
    );
}

#[test]
fn what_yaml_would_change_silently_is_refused_or_kept() {
    check(
        "version: 1\nlanes: {s: {flag: [{header: x-s, values: [on, true]}], trust: [everyone]}}\n",
        1,
        &["policy.yaml:2: lanes.s.flag[0].values[1]: true: must be a text: write it in quotes", "1 error"],
    );
    check(
        "version: 01\n",
        1,
        &["policy.yaml:1: version: \"01\": must be 1; write it without quotes", "1 error"],
    );
    check(
        "version: 1_0\n",
        1,
        &["policy.yaml:1: version: \"1_0\": must be 1; write it without quotes", "1 error"],
    );
    check("version: 1.0\n", 0, &["policy.yaml: good: lanes normal; 0 limits, 0 commands"]);
}

#[test]
fn a_text_that_is_no_yaml_or_says_a_name_twice_is_refused_with_its_line() {
    for (yaml, error) in [
        ("version: 1\nversion: 1\n", ":2: version: cannot be read as YAML: duplicate mapping key `version`"),
        (
            "rate_limits:\n  a: {}\n  b: {}\n  a: {}\n",
            ":4: rate_limits.a: cannot be read as YAML: duplicate mapping key `a`",
        ),
        (
            "resilience:\n  shadow.a: {}\n  shadow.a: {}\n",
            ":3: resilience[\"shadow.a\"]: cannot be read as YAML: duplicate mapping key `shadow.a`",
        ),
        ("version: 1\n---\nversion: 1\n", ":3: policy: cannot be read as YAML: only single YAML document"),
        ("version: [\n", ":1: policy: cannot be read as YAML: "),
        ("version: 1\nstore: *x\n", ":2: policy: cannot be read as YAML: "),
        ("version: 1\nstore: .inf\n", ":2: policy: cannot be read as YAML: "),
        ("", ": policy: null: must be an object with the fields version, "),
    ] {
        let run = Files::new(&[("policy.yaml", yaml)]).check(&["policy.yaml"]);
        assert_eq!(run.status, Some(1), "{yaml:?}");
        assert!(run.out.starts_with(&format!("policy.yaml{error}")), "{yaml:?}: {}", run.out);
        assert!(run.out.ends_with("\n1 error\n"), "{yaml:?}: {}", run.out);
    }
}

#[test]
fn a_bomb_of_aliases_is_refused_and_does_not_go_off() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let run = Files::new(&[("bomb.yaml", &bomb)]).check(&["bomb.yaml"]);
    assert_eq!(run.status, Some(1));
    assert!(
        run.out.contains("cannot be read as YAML: YAML document too large or too complex"),
        "{}",
        run.out
    );
}

#[test]
fn json_is_read_as_the_plugin_reads_it() {
    let files = Files::new(&[
        ("good.json", r#"{"version": 1}"#),
        ("twice.json", "{\"version\": 1,\n\"version\": 1}"),
        ("wrong.json", "{\n\"version\": 2\n}"),
        ("yaml.json", "version: 1"),
    ]);
    let out = |file: &str| files.check(&[file]).out;
    assert_eq!(out("good.json"), "good.json: good: lanes normal; 0 limits, 0 commands\n");
    assert_eq!(
        out("twice.json"),
        "twice.json:1: version: must be JSON: the name \"version\" stands twice in an object at line 2 column 9\n1 error\n"
    );
    assert_eq!(out("wrong.json"), "wrong.json:2: version: 2: must be 1\n1 error\n");
    assert_eq!(files.check(&["yaml.json"]).status, Some(1));
}

#[test]
fn several_policies_are_checked_in_one_go_and_the_worst_decides() {
    let files = Files::new(&[("good.yaml", "version: 1"), ("bad.yaml", "version: 2"), ("worse.yaml", "{}")]);
    let good = "good.yaml: good: lanes normal; 0 limits, 0 commands\n";
    let bad = "bad.yaml:1: version: 2: must be 1\n";
    let worse = "worse.yaml:1: version: is required: it is 1\n";
    assert_eq!(
        files.check(&["bad.yaml", "good.yaml", "worse.yaml"]),
        Run { status: Some(1), out: format!("{bad}{good}{worse}2 errors\n"), err: String::new() }
    );
    let run = files.check(&["missing.yaml", "good.yaml", "bad.yaml"]);
    assert_eq!((run.status, run.out), (Some(2), format!("{good}{bad}1 error\n")));
    assert!(run.err.starts_with("missing.yaml: cannot be read: "), "{}", run.err);
}

#[test]
fn standard_input_is_read_for_a_dash() {
    let folder = TempDir::new().unwrap();
    let run = |input: &str| lanekeeper(folder.path(), &["check", "-"], input);
    assert_eq!(run("version: 1\n").out, "standard input: good: lanes normal; 0 limits, 0 commands\n");
    assert_eq!(run("version: 2\n").out, "standard input:1: version: 2: must be 1\n1 error\n");
    let long = format!("# {}", "x".repeat(4 * 1024 * 1024));
    assert_eq!(run(&long).err, "standard input: is longer than 4194304 bytes\n");
}

#[test]
fn wrong_arguments_and_what_is_no_text_end_with_status_2() {
    let files = Files::new(&[]);
    std::fs::write(files.0.path().join("binary.yaml"), b"\xff\xfe").unwrap();
    for arguments in [&["check"][..], &["check", "--fix", "a.yaml"], &["chekc"], &[], &["check", "."]] {
        let run = lanekeeper(files.0.path(), arguments, "");
        assert_eq!((run.status, run.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!run.err.is_empty(), "{arguments:?}");
    }
    assert_eq!(files.check(&["binary.yaml"]).status, Some(2));
}

#[test]
fn help_says_what_is_checked_and_how_it_ends() {
    let run = Files::new(&[]).check(&["--help"]);
    assert_eq!(run.status, Some(0));
    for part in ["`-` reads standard input", "Exit status:", "$ lanekeeper check policy.yaml"] {
        assert!(run.out.contains(part), "{part}");
    }
}
