use super::*;
use crate::policy::{Body, Carrier, Flag, Lane, Mark, NORMAL, Responses};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn flag(carrier: Carrier, value: &str) -> Flag {
    Flag { carrier, values: vec![value.into()] }
}

fn shadow_entry() -> LaneEntry {
    LaneEntry {
        flags: vec![
            flag(Carrier::Baggage("shadow".into()), "true"),
            flag(Carrier::Header("x-shadow".into()), "1"),
            flag(Carrier::Tracestate("vendor".into()), "shadow"),
        ],
        trust: vec![Truster::SourceCidr(vec!["10.0.0.0/8".parse().unwrap()])],
        untrusted: Untrusted::Strip,
        propagate: vec![
            Mark { carrier: Carrier::Baggage("shadow".into()), value: "true".into() },
            Mark { carrier: Carrier::Header("x-lane".into()), value: "shadow".into() },
        ],
        enabled: true,
    }
}

fn policy(entries: &[(&str, LaneEntry)]) -> Policy {
    let lane =
        |name: &str, entry| Lane { name: name.into(), entry, limits: Vec::new(), breakers: Vec::new() };
    let mut lanes = vec![lane(NORMAL, None)];
    lanes.extend(entries.iter().map(|(name, entry)| lane(name, Some(entry.clone()))));
    let responses =
        Responses { draft_headers: true, legacy_headers: false, rejected_status: 429, body: Body::Problem };
    Policy { lanes, store: None, commands: Vec::new(), responses, warnings: Vec::new() }
}

fn sorted(entry: LaneEntry, source: &str, pairs: &[(&str, &str)]) -> Sorting {
    let source = parse_source(source.as_bytes());
    sort(&policy(&[("shadow", entry)]), &Headers::from_pairs(pairs.iter().copied()), &|| source)
}

fn edits(sorting: &Sorting) -> Vec<(String, Vec<String>)> {
    let text = |line: &Vec<u8>| String::from_utf8_lossy(line).into_owned();
    sorting.edits.iter().map(|e| (e.name.clone(), e.lines.iter().map(text).collect())).collect()
}

const TRUSTED: &str = "10.1.2.3:4567";
const UNTRUSTED: &str = "[2001:db8::1]:80";

#[test]
fn a_trusted_flag_enters_the_lane_and_is_written_in_every_form() {
    let sorting = sorted(shadow_entry(), TRUSTED, &[("baggage", "a=1,shadow=true"), ("x-lane", "spoof")]);
    assert_eq!(sorting.lane, 1);
    assert_eq!(edits(&sorting), [("x-lane".into(), vec!["shadow".into()])]);
}

#[test]
fn any_one_carrier_marks_the_request() {
    let sorting = sorted(shadow_entry(), TRUSTED, &[("x-shadow", "1")]);
    assert_eq!(sorting.lane, 1);
    assert_eq!(edits(&sorting)[0], ("baggage".into(), vec!["shadow=true".into()]));
}

#[test]
fn an_untrusted_flag_is_stripped_from_every_carrier_and_the_request_is_normal() {
    let pairs = [
        ("baggage", "a=1,shadow=true"),
        ("x-shadow", "1"),
        ("x-lane", "shadow"),
        ("tracestate", "v=1,vendor=x"),
    ];
    let sorting = sorted(shadow_entry(), UNTRUSTED, &pairs);
    assert_eq!(
        (sorting.lane, sorting.forged.as_slice(), sorting.turned_away),
        (NORMAL_LANE, &[1][..], false)
    );
    assert_eq!(
        edits(&sorting),
        [
            ("baggage".into(), vec!["a=1".into()]),
            ("x-shadow".into(), vec![]),
            ("tracestate".into(), vec!["v=1".into()]),
            ("x-lane".into(), vec![]),
        ]
    );
}

#[test]
fn a_value_that_marks_nothing_is_normal_and_stripped_from_the_untrusted_without_alarm() {
    let trusted = sorted(shadow_entry(), TRUSTED, &[("baggage", "shadow=false")]);
    assert_eq!(trusted, Sorting::default());
    let untrusted = sorted(shadow_entry(), UNTRUSTED, &[("baggage", "shadow=false")]);
    assert_eq!(edits(&untrusted), [("baggage".into(), vec![])]);
    assert!(untrusted.forged.is_empty());
}

#[test]
fn untrusted_reject_turns_the_forger_away_and_nobody_else() {
    let entry = LaneEntry { untrusted: Untrusted::Reject, ..shadow_entry() };
    assert!(sorted(entry.clone(), UNTRUSTED, &[("x-shadow", "1")]).turned_away);
    assert!(!sorted(entry.clone(), UNTRUSTED, &[("x-shadow", "0")]).turned_away);
    assert!(!sorted(entry, TRUSTED, &[("x-shadow", "1")]).turned_away);
}

#[test]
fn an_unknown_source_is_untrusted_and_everyone_is_everyone() {
    assert_eq!(sorted(shadow_entry(), "unix:///sock", &[("x-shadow", "1")]).lane, NORMAL_LANE);
    let open = LaneEntry { trust: vec![Truster::Everyone], ..shadow_entry() };
    assert_eq!(sorted(open, "", &[("x-shadow", "1")]).lane, 1);
}

#[test]
fn a_disabled_lane_takes_nobody_and_still_strips_the_untrusted() {
    let off = LaneEntry { enabled: false, ..shadow_entry() };
    assert_eq!(sorted(off.clone(), TRUSTED, &[("x-shadow", "1")]), Sorting::default());
    assert_eq!(edits(&sorted(off, UNTRUSTED, &[("x-shadow", "1")])), [("x-shadow".into(), vec![])]);
}

#[test]
fn tracestate_counts_only_beside_a_valid_traceparent() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let with = [("traceparent", parent), ("tracestate", "vendor=shadow")];
    assert_eq!(sorted(shadow_entry(), TRUSTED, &with).lane, 1);
    assert_eq!(sorted(shadow_entry(), TRUSTED, &[("tracestate", "vendor=shadow")]).lane, NORMAL_LANE);
}

#[test]
fn of_two_lanes_the_first_by_name_has_the_request() {
    let both = policy(&[("canary", shadow_entry()), ("shadow", shadow_entry())]);
    let headers = Headers::from_pairs([("x-shadow", "1")]);
    assert_eq!(sort(&both, &headers, &|| parse_source(TRUSTED.as_bytes())).lane, 1);
}

#[test]
fn reads_every_form_of_source_address() {
    let ip = |text: &str| parse_source(text.as_bytes()).map(|ip| ip.to_string());
    assert_eq!(ip("1.2.3.4:0").unwrap(), "1.2.3.4");
    assert_eq!(ip("[2001:db8::1]:80").unwrap(), "2001:db8::1");
    assert_eq!(ip("::ffff:10.0.0.1").unwrap(), "10.0.0.1");
    assert_eq!(ip("/var/run/x.sock"), None);
    assert_eq!(parse_source(b"\xff"), None);
}
