//! Breakers in a policy: how they are summed up, what is warned of, and the examples of the documents.

use lanekeeper_engine::policy::Policy;

use super::{Files, Run, check};

const BREAKERS: &str = "\
version: 1
lanes:
  shadow:
    flag: [{header: x-shadow, values: [\"true\"]}]
    trust: [everyone]
commands:
  - {command: account.get, match: {grpc: account.Account/Get}}
  - {command: voucher.get, match: {path: {prefix: /voucher/}}}
  - {command: voucher.put, match: {path: {prefix: /put/}}}
resilience:
  account.get: {failure_rate: 0.5%, max_concurrent: 200, consecutive_failures: 9, min_calls: 1}
  shadow.account.get: {force_closed: true}
  shadow.voucher.put: {slow_call: {over: 1500ms}}
  voucher.get: {force_open: true}
";

#[test]
fn breakers_are_summed_up_with_what_each_lane_makes_of_them() {
    check(
        BREAKERS,
        0,
        &[
            "policy.yaml: good: lanes normal, shadow; 0 limits, 3 commands, 3 breakers",
            "  breaker account.get: opens for 5s when 0.5% failed or 80% took over 2s of at least 1 call in 10s, \
             or 9 failed in a row; at most 200 at once",
            "    shadow: shadow.account.get: forced closed; at most 200 at once",
            "  breaker voucher.get: forced open",
            "    shadow: normal values, own state",
            "  breaker voucher.put: none",
            "    shadow: shadow.voucher.put: opens for 5s when 50% failed or 80% took over 1500ms of at least \
             20 calls in 10s",
        ],
    );
    let falling_back = |fallback: &str| {
        let policy = BREAKERS.replace("[everyone]", &format!("[everyone]\n    fallback: {fallback}"));
        Files::new(&[("p.yaml", &policy)]).check(&["p.yaml"]).out
    };
    let sharing = falling_back("share");
    assert!(sharing.contains("    shadow: shares the normal breaker and its state\n"), "{sharing}");
    let rejecting = falling_back("reject");
    assert!(rejecting.contains("    shadow: turned away\n"), "{rejecting}");
}

/// What stands behind `<lane>: ` in the summary of the mappings, by limit and breaker.
fn mappings_in_shadow(yaml: &str) -> Vec<(String, String)> {
    let run = Files::new(&[("policy.yaml", yaml)]).check(&["policy.yaml"]);
    assert_eq!((run.status, run.out.contains("warning")), (Some(0), false), "{}", run.out);
    let lines: Vec<&str> = run.out.lines().skip(1).collect();
    let name = |line: &str| line.trim_start().split(": ").next().unwrap().to_owned();
    let version = |line: &str| line.trim_start().split_once("shadow: ").unwrap().1.to_owned();
    let (normal, shadow) = (lines.iter().step_by(2), lines.iter().skip(1).step_by(2));
    normal.zip(shadow).map(|(normal, shadow)| (name(normal), version(shadow))).collect()
}

#[test]
fn the_mappings_of_a_service_load_without_a_warning_with_and_without_each_entry_of_the_lane() {
    let whole = include_str!("../../../envoy/mappings/policy.yaml");
    let mappings = [
        ("ads_voucher_rate_limit", "shadow_ads_voucher_rate_limit"),
        ("default_rate_limit", "shadow_default_rate_limit"),
        ("hard_rate_limit", "shadow_hard_rate_limit"),
        ("soft_rate_limit", "shadow_soft_rate_limit"),
        ("breaker account.core.get_account", "shadow.account.core.get_account"),
        ("breaker voucher.code.batch_get_code_using_cache", "shadow.voucher.code.batch_get_code_using_cache"),
    ];
    let with_all = mappings_in_shadow(whole);
    let names: Vec<&str> = with_all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, mappings.map(|(normal, _)| normal));
    for (at, (_, entry)) in mappings.into_iter().enumerate() {
        assert!(with_all[at].1.starts_with(&format!("{entry}: ")), "{:?}", with_all[at]);
        let is_kept = |line: &&str| !line.trim_start().starts_with(&format!("{entry}: "));
        let without: String = whole.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        let mut expected = with_all.clone();
        let state = if entry.starts_with("shadow.") { "own state" } else { "own counters" };
        expected[at].1 = format!("normal values, {state}");
        assert_eq!(mappings_in_shadow(&without), expected);
    }
    let older = whole.replace("shadow_default_rate_limit:", "shadow_rate_limit:");
    assert_eq!(mappings_in_shadow(&older)[1].1, "shadow_rate_limit: 500 per 1s by everyone");
}

#[test]
fn the_default_breaker_of_the_readme_says_what_holds_without_it() {
    let readme = include_str!("../../../README.md");
    let start = readme.find("```yaml\ncommands:").unwrap() + "```yaml\n".len();
    let example = readme[start..].split("```").next().unwrap();
    let lane = "lanes: {shadow: {flag: [{header: x-shadow, values: [\"true\"]}], trust: [everyone]}}";
    let written_out = format!("version: 1\n{lane}\n{example}");
    let (until, after) = example.split_once("  default:").unwrap();
    let entries = &after[after.find("  account.core").unwrap()..];
    let left_out = format!("version: 1\n{lane}\n{until}{entries}");
    let breakers = |yaml: &str| {
        let policy = Policy::from_value(&serde_saphyr::from_str(yaml).unwrap()).unwrap();
        assert_eq!(policy.warnings, []);
        let breakers = policy.lanes.into_iter().flat_map(|lane| lane.breakers);
        breakers.map(|breaker| (breaker.title, format!("{:#?}", breaker.verdict))).collect::<Vec<_>>()
    };
    assert_eq!(breakers(&written_out), breakers(&left_out));
    let titles: Vec<String> = breakers(&written_out).into_iter().map(|(title, _)| title).collect();
    assert_eq!(titles, ["account.core.get_account", "shadow.account.core.get_account"]);
}

#[test]
fn what_is_likely_a_slip_is_a_warning_with_its_line_and_no_reason_to_refuse() {
    let yaml = "version: 1\n\
                commands:\n\
                - {command: account.get, match: {grpc: account.Account/Get}}\n\
                resilience:\n  \
                  acount.get: {}\n  \
                  shadow.account.get: {}\n";
    let files = Files::new(&[("good.yaml", yaml), ("bad.yaml", "version: 2")]);
    let good = "good.yaml: good: lanes normal; 0 limits, 1 command\n\
                good.yaml:5: warning: resilience[\"acount.get\"]: {}: guards nothing: `commands` does not name \
                `acount.get`; did you mean `account.get`?\n\
                good.yaml:6: warning: resilience[\"shadow.account.get\"]: {}: guards nothing: `commands` does not name \
                `shadow.account.get`; no lane is called `shadow`\n";
    assert_eq!(
        files.check(&["good.yaml"]),
        Run { status: Some(0), out: format!("{good}2 warnings\n"), err: String::new() }
    );
    let bad = "bad.yaml:1: version: 2: must be 1\n";
    assert_eq!(
        files.check(&["good.yaml", "bad.yaml"]),
        Run { status: Some(1), out: format!("{good}{bad}1 error, 2 warnings\n"), err: String::new() }
    );
}
