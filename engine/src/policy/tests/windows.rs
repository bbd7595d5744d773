//! The windows of a limit, and how they are kept.

use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::limits::{check_x, one};
use super::*;
use crate::window::{Algorithm, Offset, Timezone, Zone};

#[test]
fn a_window_says_how_many_in_how_long() {
    let window = |window: Value| json!({"windows": [window]});
    let per = "must be a duration from 1ms to 366d: a whole number and its unit, ms, s, m, h or d";
    check_x(
        window(json!({})),
        &[
            ".windows[0].limit: is required: how many requests",
            ".windows[0].per: is required: how long it counts for",
        ],
    );
    for wrong in ["", "1", "0s", "1foo", "1.5m", "367d", "1m30s", "minute", "-1m"] {
        check_x(
            window(json!({"limit": 1, "per": wrong})),
            &[&format!(".windows[0].per: \"{wrong}\": {per}")],
        );
    }
    check_x(window(json!({"limit": 1, "per": 60})), &[&format!(".windows[0].per: 60: {per}")]);
    check_x(
        window(json!({"limit": "100", "per": "1m"})),
        &[".windows[0].limit: \"100\": must be a whole number from 1 to 1000000000; write it without quotes"],
    );
    check_x(
        window(json!({"limit": 1, "prr": "1m"})),
        &[
            ".windows[0].prr: \"1m\": is an unknown field; allowed: limit, per, burst; did you mean `per`?",
            ".windows[0].per: is required: how long it counts for",
        ],
    );
    check_x(
        json!({"windows": [{"limit": 1, "per": "60s"}, {"limit": 2, "per": "1h"}, {"limit": 3, "per": "1m"}]}),
        &[".windows[2]: {\"limit\":3,\"per\":\"1m\"}: has the length 1m of a window before it"],
    );
}

#[test]
fn only_a_token_bucket_has_a_burst() {
    let windows = json!([{"limit": 10, "per": "1s", "burst": 20}]);
    check_x(json!({"windows": windows}), &[".windows[0].burst: 20: needs `algorithm: token_bucket`"]);
    check_x(
        json!({"windows": windows, "algorithm": "sliding_window"}),
        &[".windows[0].burst: 20: needs `algorithm: token_bucket`; rate_limits.x.algorithm says otherwise"],
    );
    check_x(json!({"windows": windows, "algorithm": "token_bucket"}), &[]);
    check_x(
        json!({"windows": [{"limit": 10, "per": "1s", "burst": 0}], "algorithm": "token_bucket"}),
        &[".windows[0].burst: 0: must be a whole number from 1 to 1000000000"],
    );
    check_x(
        json!({"windows": [{"limit": 999_983, "per": "1d", "burst": 1_000_000}], "algorithm": "token_bucket"}),
        &[
            ".windows[0]: {\"burst\":1000000,\"limit\":999983,\"per\":\"1d\"}: makes no window: burst x per is too large \
           to be counted exactly: lower burst or use a shorter per",
        ],
    );
}

#[test]
fn an_algorithm_is_one_of_five() {
    check_x(
        json!({"algorithm": "leaky_bucket"}),
        &[
            ".algorithm: \"leaky_bucket\": must be one of sliding_window, sliding_log, sliding_counter, fixed_window, token_bucket",
        ],
    );
    check_x(
        json!({"algorithm": "token-bucket"}),
        &[
            ".algorithm: \"token-bucket\": must be one of sliding_window, sliding_log, sliding_counter, fixed_window, token_bucket; did you mean `token_bucket`?",
        ],
    );
}

#[test]
fn only_a_fixed_window_has_a_timezone() {
    let daily = json!([{"limit": 1000, "per": "1d"}]);
    let offset = |minutes| Timezone::from(Offset::from_minutes(minutes).unwrap());
    let zone = |name| Timezone::from(Zone::named(name).unwrap());
    for (timezone, expected) in [
        (None, offset(0)),
        (Some("UTC"), offset(0)),
        (Some("+08:00"), offset(480)),
        (Some("-03:30"), offset(-210)),
        (Some("Europe/Berlin"), zone("Europe/Berlin")),
        (Some("Etc/UTC"), zone("Etc/UTC")),
    ] {
        let mut fields = json!({"algorithm": "fixed_window", "windows": daily});
        if let Some(timezone) = timezone {
            fields["timezone"] = json!(timezone);
        }
        let algorithm = Algorithm::FixedWindow { timezone: expected };
        let window = Window::new(1000, Duration::from_secs(86_400), algorithm).unwrap();
        assert_eq!(*count(&loaded(&one(fields)).lanes[0].limits[0]).windows, [window]);
    }
    check_x(json!({"timezone": "UTC"}), &[".timezone: \"UTC\": needs `algorithm: fixed_window`"]);
    check_x(
        json!({"timezone": "UTC", "algorithm": "token_bucket"}),
        &[".timezone: \"UTC\": needs `algorithm: fixed_window`; rate_limits.x.algorithm says otherwise"],
    );
    check_x(
        json!({"windows": [{"limit": 1, "per": "1d", "timezone": "UTC"}]}),
        &[".windows[0].timezone: \"UTC\": is an unknown field; allowed: limit, per, burst"],
    );
    check_x(
        json!({"windows": [{"limit": 1, "per": "1d", "burst": 2}], "algorithm": "fixed_window"}),
        &[".windows[0].burst: 2: needs `algorithm: token_bucket`; rate_limits.x.algorithm says otherwise"],
    );
}

#[test]
fn a_sliding_log_has_a_smaller_limit() {
    let log = |limit: u32| json!({"algorithm": "sliding_log", "windows": [{"limit": limit, "per": "1h"}]});
    let window = Window::new(100_000, Duration::from_secs(3600), Algorithm::SlidingLog).unwrap();
    assert_eq!(*count(&loaded(&one(log(100_000))).lanes[0].limits[0]).windows, [window]);
    check_x(
        log(100_001),
        &[
            ".windows[0].limit: 100001: must be a whole number from 1 to 100000 for a sliding_log, which keeps an entry \
             for each request",
        ],
    );
}

#[test]
fn a_sliding_counter_has_weights_that_are_exact() {
    let counter = |limit: u32, per: &str| json!({"algorithm": "sliding_counter", "windows": [{"limit": limit, "per": per}]});
    let window = Window::new(1_000_000, Duration::from_secs(86_400), Algorithm::SlidingCounter).unwrap();
    assert_eq!(*count(&loaded(&one(counter(1_000_000, "1d"))).lanes[0].limits[0]).windows, [window]);
    check_x(
        counter(1_000_000, "366d"),
        &[
            ".windows[0]: {\"limit\":1000000,\"per\":\"366d\"}: makes no window: limit x per is too large to be weighted \
             exactly: lower limit or use a shorter per",
        ],
    );
}

#[test]
fn a_timezone_that_nobody_knows_is_refused_with_its_near_miss() {
    let fixed = |timezone: Value| json!({"algorithm": "fixed_window", "timezone": timezone});
    let allowed = "must be UTC, an offset from -12:00 to +14:00, such as +08:00, or a name of the IANA time zone \
                   database, such as Europe/Berlin";
    for (written, near) in [
        ("Europe/Berln", "; did you mean `Europe/Berlin`?"),
        ("asia/shanghai", "; did you mean `Asia/Shanghai`?"),
        ("Australia/Lord-Howe", "; did you mean `Australia/Lord_Howe`?"),
        ("utc", ""),
        ("Europe/Somewhere-in-Atlantis", ""),
        ("+8:00", ""),
        ("+14:01", ""),
        ("08:00", ""),
    ] {
        check_x(fixed(json!(written)), &[&format!(".timezone: \"{written}\": {allowed}{near}")]);
    }
    check_x(fixed(json!(8)), &[".timezone: 8: must be a text: write it in quotes"]);
}
