//! A new policy each moment, or new code, while requests come: none fails, nothing is spent twice, and nothing is
//! forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lanekeeper_tests::client::{Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup, Verdict};
use lanekeeper_tests::host::built_plugin;
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use serde_json::{Value, json};

const RELOADS: usize = 100;
const SENDERS: usize = 4;
/// Of the user whom all senders play: fewer than they send, in a window that no run outlasts.
const LIMIT: usize = 400;

/// Two leased limits, and another third one in each edition.
fn policy(edition: usize) -> Value {
    let per_user = |path: &str, limit: usize| {
        json!({
            "match": {"path": {"prefix": path}},
            "keys": {"user": [{"header": "x-user"}]},
            "windows": [{"limit": limit, "per": "1h"}],
        })
    };
    json!({
        "version": 1,
        "store": {"cluster": "lanekeeper", "timeout": "5s", "on_failure": "closed", "circuit": {"slow": "5s"}},
        "rate_limits": {
            "scarce": per_user("/scarce", LIMIT),
            "plenty": per_user("/plenty", 1_000_000),
            format!("edition_{}", edition % 3): per_user("/never", 5),
        },
    })
}

fn with_store(upstream: &Upstream, shim: &ShimProcess) -> Setup {
    Setup::new(upstream.address()).store(shim.address()).policy(policy(0))
}

/// What became of the requests to one path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    statuses: BTreeMap<u16, usize>,
    errors: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.errors.extend(other.errors);
    }
}

/// Requests of one sender, each to both paths, until it `is_over`. It opens a new connection after so many of them.
fn send(sender: usize, urls: &[String; 2], renew_after: usize, is_over: &AtomicBool) -> [Tally; 2] {
    let users = ["everybody".to_owned(), format!("u{sender}")];
    let mut tallies = [Tally::default(), Tally::default()];
    let mut client = Client::from(TRUSTED).unwrap();
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        for ((url, user), tally) in urls.iter().zip(&users).zip(&mut tallies) {
            match client.get(url, &[("x-user", user.as_bytes())]) {
                Ok(answer) => *tally.statuses.entry(answer.status).or_default() += 1,
                Err(error) => tally.errors.push(format!("{error:#}")),
            }
        }
        sent += 1;
        if sent % renew_after == 0 {
            client = Client::from(TRUSTED).unwrap();
        }
        // a constant load, and not as much as this machine carries
        thread::sleep(Duration::from_millis(4));
    }
    tallies
}

/// Brings a hundred policies under load. Gives what became of the scarce requests, and of the others.
fn reload_under_load(envoy: &mut Envoy, renew_after: usize) -> [Tally; 2] {
    let urls = ["/scarce", "/plenty"].map(|path| envoy.url(path));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (urls, is_over) = (&urls, &is_over);
        let senders: Vec<_> =
            (0..SENDERS).map(|n| scope.spawn(move || send(n, urls, renew_after, is_over))).collect();
        let refused = (1..=RELOADS).find(|edition| !is_accepted(envoy, &policy(*edition)));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(refused, None);
        let mut sums = [Tally::default(), Tally::default()];
        for sender in senders {
            sums.iter_mut().zip(sender.join().unwrap()).for_each(|(sum, tally)| sum.add(tally));
        }
        sums
    })
}

fn is_accepted(envoy: &mut Envoy, policy: &Value) -> bool {
    matches!(envoy.update_policy(policy), Ok(Verdict::Accepted))
}

fn holds_in_a_hundred_reloads(setup: Setup, renew_after: usize) {
    let mut envoy = setup.start().unwrap();
    let [scarce, plenty] = reload_under_load(&mut envoy, renew_after);
    assert_eq!((scarce.errors, plenty.errors), (vec![], vec![]));
    assert_eq!(plenty.statuses.keys().collect::<Vec<_>>(), [&200]);
    assert_eq!(scarce.statuses.keys().collect::<Vec<_>>(), [&200, &429]);
    assert!(scarce.statuses[&200] <= LIMIT, "{:?}", scarce.statuses);
    // without their leases each sender would ask after each reload
    let labels = [("limit", "plenty"), ("source", "store")];
    let waited = envoy.admin().metric("lanekeeper_decisions_total", &labels).unwrap();
    assert!(waited <= 5 * SENDERS as u64, "{waited} of {:?} waited for the store", plenty.statuses);
    assert!(!is_accepted(&mut envoy, &json!({"version": 1, "rate_limit": {}})), "a refused one");
    assert_eq!(ask(&envoy, "/plenty", "u0"), (200, None));
}

/// The status, and what stood in for the store.
fn ask(envoy: &Envoy, path: &str, user: &str) -> (u16, Option<String>) {
    let client = Client::unkept(TRUSTED).unwrap();
    let answer = client.get(&envoy.url(path), &[("x-user", user.as_bytes())]).unwrap();
    (answer.status, answer.fallback().map(str::to_owned))
}

#[test]
fn no_request_fails_in_a_hundred_reloads_by_lds() {
    let (upstream, shim) = (Upstream::start().unwrap(), ShimProcess::start("memory").unwrap());
    // when its drain is over, Envoy closes what is left of an old listener's connections amid their requests: no
    // connection here lives for as long
    holds_in_a_hundred_reloads(with_store(&upstream, &shim), 10);
}

#[test]
fn no_request_fails_in_a_hundred_reloads_by_ecds_on_connections_that_stay() {
    let (upstream, shim) = (Upstream::start().unwrap(), ShimProcess::start("memory").unwrap());
    holds_in_a_hundred_reloads(with_store(&upstream, &shim).by_ecds(), usize::MAX);
}

#[test]
fn new_code_spends_what_the_old_one_has_leased() {
    let (upstream, mut shim) = (Upstream::start().unwrap(), ShimProcess::start("memory").unwrap());
    let mut envoy = with_store(&upstream, &shim).start().unwrap();
    let users = ["ann", "bob", "cyd"];
    users.iter().for_each(|user| assert_eq!(ask(&envoy, "/plenty", user), (200, None)));

    // a custom section more: to Envoy another program, and thus another VM
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.wasm");
    let mut code = fs::read(built_plugin()).unwrap();
    code.extend(b"\0\x08\x07edition");
    fs::write(&file, code).unwrap();
    let vms = |envoy: &Envoy| envoy.admin().counter("wasm.envoy.wasm.runtime.v8.created").unwrap();
    let before = vms(&envoy);
    assert!(matches!(envoy.update_code(file).unwrap(), Verdict::Accepted));
    assert!(vms(&envoy) > before, "it runs the code that it ran before");

    shim.stop().unwrap();
    users.iter().for_each(|user| assert_eq!(ask(&envoy, "/plenty", user), (200, None)));
    assert_eq!(ask(&envoy, "/plenty", "eve"), (503, Some("closed".to_owned())));
}
