//! Lanes: flags, trust and what goes downstream.

use super::*;

/// A policy whose lane `shadow` has `more` fields beside a flag and its trust.
fn lane(more: Value) -> Value {
    let base = json!({"flag": [{"header": "x-shadow", "values": ["true"]}], "trust": ["everyone"]});
    json!({"version": 1, "lanes": {"shadow": with(base, more)}})
}

fn entry(policy: &Value) -> LaneEntry {
    loaded(policy).lanes[1].entry.clone().unwrap()
}

#[test]
fn a_lane_has_every_carrier_and_every_setting() {
    let entry = entry(&json!({"version": 1, "lanes": {"shadow": {
        "flag": [
            {"baggage": "Shadow", "values": ["true", "1"]},
            {"header": "x-shadow", "values": ["true", "1"]},
            {"jaeger_baggage": "shadow", "values": ["true"]},
            {"skywalking": "shadow", "values": ["true"]},
            {"tracestate": "vendor@shop", "values": ["shadow"]},
        ],
        "trust": [{"source_cidr": ["10.0.0.0/8", "fd00::/8"]}, "everyone"],
        "untrusted": "reject",
        "propagate": [{"baggage": "Shadow", "value": "true"}, {"header": "x-shadow", "value": "1"}],
        "fallback": "values",
        "enabled": false,
    }}}));
    let flag = |carrier, values: &[&str]| Flag {
        carrier,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let mark = |carrier, value: &str| Mark { carrier, value: value.to_owned() };
    assert_eq!(
        entry.flags,
        [
            flag(Carrier::Baggage("Shadow".to_owned()), &["true", "1"]),
            flag(Carrier::Header("x-shadow".to_owned()), &["true", "1"]),
            flag(Carrier::JaegerBaggage("shadow".to_owned()), &["true"]),
            flag(Carrier::SkyWalking("shadow".to_owned()), &["true"]),
            flag(Carrier::Tracestate("vendor@shop".to_owned()), &["shadow"]),
        ]
    );
    let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert_eq!(entry.trust, [Truster::SourceCidr(networks), Truster::Everyone]);
    assert_eq!(entry.untrusted, Untrusted::Reject);
    assert_eq!(
        entry.propagate,
        [
            mark(Carrier::Baggage("Shadow".to_owned()), "true"),
            mark(Carrier::Header("x-shadow".to_owned()), "1"),
        ]
    );
    assert!(!entry.enabled);
}

#[test]
fn a_lane_strips_the_untrusted_writes_nothing_and_is_enabled_unless_it_says_otherwise() {
    let entry = entry(&lane(json!({})));
    assert_eq!((entry.untrusted, entry.propagate.len(), entry.enabled), (Untrusted::Strip, 0, true));
}

#[test]
fn lanes_come_in_the_order_of_their_names_behind_the_normal_one() {
    let lane = |header: &str| json!({"flag": [{"header": header, "values": ["1"]}], "trust": ["everyone"]});
    let policy = loaded(&json!({"version": 1, "lanes": {"shadow": lane("x-a"), "canary": lane("x-b")}}));
    let names: Vec<&str> = policy.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["normal", "canary", "shadow"]);
}

#[test]
fn who_may_set_the_flag_and_what_it_is_must_be_said() {
    check(
        json!({"version": 1, "lanes": {"shadow": {}}}),
        &[
            "lanes.shadow.flag: is required: what marks the requests of this lane",
            "lanes.shadow.trust: is required: who may set the flag; `[everyone]` has to be written out",
        ],
    );
    check(
        lane(json!({"flag": [], "trust": []})),
        &[
            "lanes.shadow.flag: []: must not be empty: write an item, or leave it out",
            "lanes.shadow.trust: []: must not be empty: write an item, or leave it out",
        ],
    );
    check(lane(json!({"trust": "everyone"})), &["lanes.shadow.trust: \"everyone\": must be a list"]);
    check(
        lane(json!({"trust": ["everybody"]})),
        &["lanes.shadow.trust[0]: \"everybody\": must be one of everyone, {source_cidr: [...]}"],
    );
    check(
        lane(json!({"trust": [{"source_cidr": []}]})),
        &["lanes.shadow.trust[0].source_cidr: []: must not be empty: write an item, or leave it out"],
    );
}

#[test]
fn trust_that_this_version_cannot_check_is_refused() {
    let later = "is not supported by this version; supported: everyone, {source_cidr: [...]}";
    check(
        lane(json!({"trust": [{"peer_principal": ["spiffe://a"]}, {"signature": {"header": "x-s"}}]})),
        &[
            &format!("lanes.shadow.trust[0]: {{\"peer_principal\":[\"spiffe://a\"]}}: {later}"),
            &format!("lanes.shadow.trust[1]: {{\"signature\":{{\"header\":\"x-s\"}}}}: {later}"),
        ],
    );
}

#[test]
fn networks_must_be_networks() {
    let one = |cidr: &str| lane(json!({"trust": [{"source_cidr": [cidr]}]}));
    let error =
        |cidr: &str, problem: &str| format!("lanes.shadow.trust[0].source_cidr[0]: \"{cidr}\": {problem}");
    let form = "must be a network such as 10.0.0.0/8 or fd00::/8; one address is 10.0.0.1/32";
    for cidr in ["", "10.0.0.1", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "localhost", "10.0.0.0/8 "] {
        check(one(cidr), &[&error(cidr, form)]);
    }
    check(one("10.0.0.1/8"), &[&error("10.0.0.1/8", "has bits beyond its prefix: write 10.0.0.0/8")]);
    let everyone = "is everyone: write `everyone` instead of the network";
    check(one("0.0.0.0/0"), &[&error("0.0.0.0/0", everyone)]);
    check(one("::/0"), &[&error("::/0", everyone)]);
    for good in ["10.0.0.1/32", "192.168.0.0/16", "fd00::/8", "::1/128"] {
        check(one(good), &[]);
    }
}

#[test]
fn a_flag_has_one_carrier_in_its_own_grammar() {
    let one = |flag: Value| lane(json!({"flag": [flag]}));
    let error = |field: &str, rest: &str| format!("lanes.shadow.flag[0]{field}: {rest}");
    let exactly = "must have exactly one of baggage, header, jaeger_baggage, skywalking, tracestate";
    check(one(json!({"values": ["1"]})), &[&error("", &format!("{{\"values\":[\"1\"]}}: {exactly}"))]);
    check(
        one(json!({"header": "a", "baggage": "b", "values": ["1"]})),
        &[&error("", &format!("{{\"baggage\":\"b\",\"header\":\"a\",\"values\":[\"1\"]}}: {exactly}"))],
    );
    check(
        one(json!({"header": "x-shadow"})),
        &[&error(".values", "is required: the values that mark a request, such as [\"true\", \"1\"]")],
    );
    for (carrier, key, problem) in [
        ("header", "X-Shadow", "must be lower-case: `x-shadow`"),
        ("header", "x shadow", "must be a header's name: letters, digits and !#$%&'*+-.^_`|~"),
        ("header", ":path", "must not be a pseudo header: `path` says what must hold for the path"),
        ("header", "host", "must be a header of your own: Envoy or tracers live on this one"),
        ("header", "content-length", "must be a header of your own: Envoy or tracers live on this one"),
        ("header", "x-envoy-force-trace", "must be a header of your own: Envoy or tracers live on this one"),
        ("header", "baggage", "has a grammar of its own: use {baggage: …}"),
        ("header", "uberctx-shadow", "has a grammar of its own: use {jaeger_baggage: …}"),
        ("header", "sw8-correlation", "has a grammar of its own: use {skywalking: …}"),
        ("header", "tracestate", "has a grammar of its own: use {tracestate: …}"),
        ("baggage", "a b", "must be a token: letters, digits and !#$%&'*+-.^_`|~"),
        ("baggage", "a=b", "must be a token: letters, digits and !#$%&'*+-.^_`|~"),
        ("jaeger_baggage", "Shadow", "must be lower-case: `shadow`"),
        (
            "tracestate",
            "Vendor",
            "must be a key of tracestate: lower-case letters, digits and _-*/@, a letter or digit first",
        ),
        ("skywalking", "", "must not be empty"),
    ] {
        let shown = json!(key).to_string();
        check(
            one(json!({carrier: key, "values": ["1"]})),
            &[&error(&format!(".{carrier}"), &format!("{shown}: {problem}"))],
        );
    }
    for good in ["baggage-shadow", "x-pts-test", "p-pradar-cluster-test", "user-agent"] {
        check(one(json!({"header": good, "values": ["1"]})), &[]);
    }
}

#[test]
fn values_are_texts_that_their_carrier_can_carry() {
    let value = |carrier: &str, value: Value| lane(json!({"flag": [{carrier: "shadow", "values": [value]}]}));
    let error = |shown: &str, problem: &str| format!("lanes.shadow.flag[0].values[0]: {shown}: {problem}");
    check(value("header", json!(true)), &[&error("true", "must be a text: write it in quotes")]);
    check(value("header", json!(1)), &[&error("1", "must be a text: write it in quotes")]);
    check(value("header", json!("")), &[&error("\"\"", "must not be empty")]);
    check(value("header", json!(" a")), &[&error("\" a\"", "must not begin or end with a space")]);
    check(value("header", json!("ü")), &[&error("\"ü\"", "must be printable ASCII, as headers are")]);
    check(value("baggage", json!("ü, %")), &[]);
    check(
        value("tracestate", json!("a=b")),
        &[&error("\"a=b\"", "must be printable ASCII without , and =, as tracestate is")],
    );
    check(
        value("header", json!("x".repeat(129))),
        &[&error(&format!("\"{}…", "x".repeat(58)), "must be at most 128 bytes long")],
    );
    check(
        lane(json!({"flag": [{"header": "x-shadow", "values": ["1", "1"]}]})),
        &["lanes.shadow.flag[0].values[1]: \"1\": stands in this list twice"],
    );
}

#[test]
fn a_value_leads_to_one_lane() {
    let flag = |carrier: &str, values: Value| json!({carrier: "x", "values": values});
    check(
        lane(json!({"flag": [flag("header", json!(["1"])), flag("header", json!(["2", "1"]))]})),
        &[
            "lanes.shadow.flag[1]: {\"header\":\"x\",\"values\":[\"2\",\"1\"]}: has a value that this lane has already",
        ],
    );
    let two = |second: Value| {
        json!({"version": 1, "lanes": {
            "a": {"flag": [flag("header", json!(["1"]))], "trust": ["everyone"]},
            "b": {"flag": [second], "trust": ["everyone"]},
        }})
    };
    check(
        two(flag("header", json!(["1"]))),
        &[
            "lanes.b.flag[0]: {\"header\":\"x\",\"values\":[\"1\"]}: has a value that leads to the lane `a` already: \
           a request has one lane only",
        ],
    );
    check(two(flag("header", json!(["2"]))), &[]);
    check(two(flag("baggage", json!(["1"]))), &[]);
}

#[test]
fn what_goes_downstream_is_written_once_and_never_into_tracestate() {
    check(
        lane(json!({"propagate": [{"tracestate": "vendor", "value": "shadow"}]})),
        &[
            "lanes.shadow.propagate[0].tracestate: \"vendor\": cannot be written: only a tracer, which makes a new \
           parent id in traceparent, may change tracestate; use baggage or header",
        ],
    );
    check(
        lane(
            json!({"propagate": [{"header": "x-shadow", "value": "1"}, {"header": "x-shadow", "value": "2"}]}),
        ),
        &[
            "lanes.shadow.propagate[1]: {\"header\":\"x-shadow\",\"value\":\"2\"}: writes what an item before it writes too",
        ],
    );
    check(
        lane(json!({"propagate": [{"header": "x-shadow"}, {"value": "1"}]})),
        &[
            "lanes.shadow.propagate[0].value: is required: what to write",
            "lanes.shadow.propagate[1]: {\"value\":\"1\"}: must have exactly one of baggage, header, \
             jaeger_baggage, skywalking, tracestate",
        ],
    );
    check(
        lane(json!({"propagate": []})),
        &["lanes.shadow.propagate: []: must not be empty: write an item, or leave it out"],
    );
}

#[test]
fn lanes_have_names_that_cannot_be_mixed_up() {
    let named = |names: &[&str]| {
        let lanes: Value = names
            .iter()
            .map(|name| {
                let flag = json!([{"baggage": name, "values": ["1"]}]);
                ((*name).to_owned(), json!({"flag": flag, "trust": ["everyone"]}))
            })
            .collect();
        json!({"version": 1, "lanes": lanes})
    };
    let shown = |name: &str| {
        let lane = json!({"flag": [{"baggage": name, "values": ["1"]}], "trust": ["everyone"]});
        words::shown(&lane)
    };
    check(
        named(&["normal"]),
        &[&format!(
            "lanes.normal: {}: needs another name: `normal` is the lane of everything else and has no flag",
            shown("normal")
        )],
    );
    check(
        named(&["a.b"]),
        &[&format!(
            "lanes[\"a.b\"]: {}: needs another name: 1 to 64 letters, digits, _ or -, and a letter or digit first",
            shown("a.b")
        )],
    );
    check(
        named(&["shadow", "shadow_canary"]),
        &[&format!(
            "lanes.shadow_canary: {}: has an overlapping name: limits that begin with `shadow_canary_` also begin \
             with `shadow_`, which marks the limits of the lane `shadow`",
            shown("shadow_canary")
        )],
    );
    check(named(&["shadow", "shadow2", "shadow-canary"]), &[]);
}

#[test]
fn other_fields_of_a_lane_say_what_they_allow() {
    check(
        lane(json!({"untrusted": "drop", "fallback": "value", "enabled": "true", "propogate": []})),
        &[
            "lanes.shadow.propogate: []: is an unknown field; allowed: flag, trust, untrusted, propagate, fallback, \
             enabled; did you mean `propagate`?",
            "lanes.shadow.untrusted: \"drop\": must be one of strip, reject",
            "lanes.shadow.fallback: \"value\": must be one of values, share, reject; did you mean `values`?",
            "lanes.shadow.enabled: \"true\": must be true or false",
        ],
    );
    check(
        json!({"version": 1, "lanes": {"shadow": []}}),
        &[
            "lanes.shadow: []: must be an object with the fields flag, trust, untrusted, propagate, fallback, enabled",
        ],
    );
    let many: Value = (0..65)
        .map(|i| {
            let flag = json!([{"header": format!("x-{i}"), "values": ["1"]}]);
            (format!("l{i}"), json!({"flag": flag, "trust": ["everyone"]}))
        })
        .collect();
    let errors = errors(&json!({"version": 1, "lanes": many}));
    assert!(errors.len() == 1 && errors[0].ends_with(": must have at most 64 entries"), "{errors:?}");
}
