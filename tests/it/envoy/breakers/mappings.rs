//! The five mappings of `envoy/mappings/policy.yaml`, from the client to the service and back: in both lanes, with their
//! entries for the shadow lane and without.

use std::sync::atomic::{AtomicUsize, Ordering};

use lanekeeper_tests::failing::{Book, Manner};
use lanekeeper_tests::shim_process::ShimProcess;

use super::*;

const SHIPPED: &str = include_str!("../../../../envoy/mappings/policy.yaml");
const SENDERS: usize = 4;

/// Whether the policy has its entries for the shadow lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entries {
    With,
    Without,
}

/// The shipped policy, with a store that a busy machine does not lose and that decides each request: then the numbers are
/// exact.
fn shipped(entries: Entries) -> Value {
    let mut policy: Value = serde_saphyr::from_str(SHIPPED).unwrap();
    policy["store"] =
        json!({"cluster": "lanekeeper", "timeout": "10s", "max_drift": 0, "circuit": {"slow": "10s"}});
    if entries == Entries::Without {
        let entries_of = |policy: &mut Value, section: &str, prefix: &str| {
            let section = policy[section].as_object_mut().unwrap();
            let before = section.len();
            section.retain(|name, _| !name.starts_with(prefix));
            before - section.len()
        };
        assert_eq!(entries_of(&mut policy, "rate_limits", "shadow_"), 4);
        assert_eq!(entries_of(&mut policy, "resilience", "shadow."), 2);
    }
    policy
}

struct Site {
    service: Failing,
    envoy: Envoy,
    _shim: ShimProcess,
}

impl Site {
    fn start(policy: Value, workers: u64) -> Self {
        let (service, shim) = (Failing::start().unwrap(), ShimProcess::start("memory").unwrap());
        let setup = Setup::new(service.address()).store(shim.address()).policy(policy).workers(workers);
        Self { envoy: setup.start().unwrap(), service, _shim: shim }
    }

    /// Sends so many requests from several clients at once, and tells how many came through and the last refusal.
    fn flood(
        &self,
        lane: Lane,
        path: &str,
        headers: &[(&str, &[u8])],
        count: usize,
    ) -> (usize, Option<Answer>) {
        let headers = &[lane.headers(), headers].concat();
        let sent = AtomicUsize::new(0);
        let send = || {
            let client = Client::from(TRUSTED).unwrap();
            let (mut admitted, mut refusal) = (0, None);
            while sent.fetch_add(1, Ordering::Relaxed) < count {
                let answer = client.get(&self.envoy.url(path), headers).unwrap();
                if answer.status == 200 {
                    admitted += 1;
                } else {
                    assert_eq!(answer.status, 429, "{answer:?}");
                    refusal = Some(answer);
                }
            }
            (admitted, refusal)
        };
        thread::scope(|scope| {
            let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
            let ends = senders.into_iter().map(|sender| sender.join().unwrap());
            ends.fold((0, None), |(sum, last), (admitted, refusal)| (sum + admitted, refusal.or(last)))
        })
    }

    /// Checks that exactly so many come through, and that the next is refused by this limit.
    fn admits(&self, lane: Lane, path: &str, headers: &[(&str, &[u8])], limit: &str, count: usize) {
        let (admitted, refusal) = self.flood(lane, path, headers, count + 2 * SENDERS);
        assert_eq!(admitted, count, "{} in {lane:?}", limit);
        let refusal = refusal.unwrap();
        assert_eq!(refused_by(&refusal).0, limit, "{refusal:?}");
        assert_eq!(refusal.fallback(), None, "{refusal:?}");
    }
}

/// The limit and the key that refuse, by the problem.
fn refused_by(answer: &Answer) -> (String, String) {
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    let text = |name: &str| problem[name].as_str().unwrap().to_owned();
    (text("limit"), text("key"))
}

/// What stands in the shadow lane where a normal number stands.
struct Numbers {
    lane: Lane,
    entries: Entries,
}

impl Numbers {
    fn of(&self, normal: usize, shadow: usize) -> usize {
        match (self.lane, self.entries) {
            (Lane::Shadow, Entries::With) => shadow,
            _ => normal,
        }
    }

    fn name(&self, limit: &str) -> String {
        match self.lane {
            Lane::Normal => limit.to_owned(),
            Lane::Shadow => format!("shadow_{limit}"),
        }
    }
}

/// Fills all limits of one lane and then those of the other.
fn limits_hold(entries: Entries, order: [Lane; 2]) {
    let mut policy = shipped(entries);
    // no machine has to send two thousand in a second for this
    for limit in ["default_rate_limit", "shadow_default_rate_limit"] {
        if let Some(window) = policy["rate_limits"].pointer_mut(&format!("/{limit}/windows/0/per")) {
            *window = json!("1m");
        }
    }
    let site = Site::start(policy, 2);
    for lane in order {
        let numbers = Numbers { lane, entries };
        let ads: [(&str, &[u8]); 3] = [("x-user-id", b"u1"), ("x-shop-id", b"s1"), ("x-reference", b"r1")];
        let name = numbers.name("ads_voucher_rate_limit");
        site.admits(lane, "/voucher/code/7", &ads, &name, numbers.of(100, 5000));

        let name = numbers.name("default_rate_limit");
        site.admits(lane, "/voucher/list/", &[], &name, numbers.of(2000, 500));

        let user: [(&str, &[u8]); 1] = [("x-user-id", b"u1")];
        let (soft, hard) = (numbers.of(20, 200), numbers.of(60, 600));
        site.admits(lane, "/uservoucher/claim/7", &user, &numbers.name("soft_rate_limit"), soft);
        // who skips the soft limit goes on to the hard one
        let skipping: [(&str, &[u8]); 2] = [("x-user-id", b"u1"), ("x-skip-soft", b"1")];
        let name = numbers.name("hard_rate_limit");
        site.admits(lane, "/uservoucher/claim/7", &skipping, &name, hard - soft);
    }
}

#[test]
fn each_limit_of_the_mappings_admits_what_its_entry_for_the_lane_says() {
    limits_hold(Entries::With, [Lane::Normal, Lane::Shadow]);
}

#[test]
fn without_entries_for_the_lane_its_limits_admit_the_normal_numbers_from_counters_of_their_own() {
    limits_hold(Entries::Without, [Lane::Shadow, Lane::Normal]);
}

#[test]
fn the_limit_over_several_keys_is_one_decision_about_all_of_them() {
    let site = Site::start(shipped(Entries::With), 2);
    let client = Client::from(TRUSTED).unwrap();
    let send = |user: &[u8], shop: &[u8]| {
        let headers = [("x-user-id", user), ("x-shop-id", shop), ("x-reference", b"r1")];
        client.get(&site.envoy.url("/voucher/code/7"), &headers).unwrap()
    };
    let told = send(b"u1", b"s1").header("ratelimit-policy").unwrap().to_owned();
    for key in ["per_user", "per_shop", "per_reference"] {
        for (window, quota) in [("1m", "q=100;w=60"), ("1h", "q=1000;w=3600")] {
            let item = format!(r#""ads_voucher_rate_limit:{key}:{window}";{quota}"#);
            assert!(told.contains(&item), "{told}");
        }
    }
    for count in 1..100 {
        assert_eq!(send(b"u1", if count % 2 == 0 { b"s1" } else { b"s2" }).status, 200);
    }
    // half of the shops' hundreds are left, and nothing of the user's and of the reference's
    let (limit, key) = refused_by(&send(b"u1", b"s1"));
    assert_eq!(limit, "ads_voucher_rate_limit");
    assert!(["per_user", "per_reference"].contains(&key.as_str()), "{key}");
    assert_eq!(send(b"u2", b"s1").status, 200);
}

#[test]
fn the_shipped_windows_and_the_older_name_are_what_clients_are_told() {
    let told = |site: &Site, lane| {
        let answer = send(&Client::from(TRUSTED).unwrap(), &site.envoy, lane, "/voucher/list/");
        answer.header("ratelimit-policy").unwrap().to_owned()
    };
    let mut policy = shipped(Entries::With);
    let site = Site::start(policy.clone(), 1);
    assert_eq!(told(&site, Lane::Normal), r#""default_rate_limit";q=2000;w=1"#);
    assert_eq!(told(&site, Lane::Shadow), r#""shadow_default_rate_limit";q=500;w=1"#);

    let limits = policy["rate_limits"].as_object_mut().unwrap();
    let entry = limits.remove("shadow_default_rate_limit").unwrap();
    limits.insert("shadow_rate_limit".to_owned(), entry);
    assert_eq!(told(&Site::start(policy, 1), Lane::Shadow), r#""shadow_default_rate_limit";q=500;w=1"#);

    let site = Site::start(shipped(Entries::Without), 1);
    assert_eq!(told(&site, Lane::Shadow), r#""shadow_default_rate_limit";q=2000;w=1"#);
}

// Breakers.

const VOUCHER: &str = "voucher.code.batch_get_code_using_cache";
const ACCOUNT: &str = "account.core.get_account";

impl Site {
    /// The `number`th call of a command: of a user of its own, so that no limit is met.
    fn begin(&self, lane: Lane, command: &str, number: usize) -> TcpStream {
        match command {
            VOUCHER => {
                let user = format!("GET /voucher/code/{number} HTTP/1.1\r\nx-user-id: {number}\r\n");
                begin_with(&self.envoy, lane, &user)
            }
            _ => begin_with(
                &self.envoy,
                lane,
                "POST /account.core.AccountService/GetAccount HTTP/1.1\r\n\
                 content-type: application/grpc\r\ncontent-length: 0\r\n",
            ),
        }
    }

    /// So many calls at once, all of them answered when this returns, and counted if no other is under way.
    fn calls(&self, lane: Lane, command: &str, manner: Manner, count: usize) {
        self.service.serve(lane, manner);
        let before = self.service.book().calls(lane).count();
        let clients: Vec<_> = (0..count).map(|number| self.begin(lane, command, number)).collect();
        let is_all = |book: &Book| book.calls(lane).count() == before + count && book.under_way(lane) == 0;
        self.service.wait("the calls", is_all).unwrap();
        wait::until("their streams to end", || {
            let under_way = self.envoy.admin().counter("http.front.downstream_rq_active")?;
            Ok((under_way == self.service.book().under_way(lane.other()) as u64).then_some(()))
        })
        .unwrap();
        drop(clients);
    }

    /// Checks that a call is refused by its command's breaker, in its own name.
    fn refuses(&self, lane: Lane, command: &str, path: &str) {
        let client = Client::from(TRUSTED).unwrap();
        let name = match lane {
            Lane::Normal => command.to_owned(),
            Lane::Shadow => format!("shadow.{command}"),
        };
        if command == VOUCHER {
            let answer = send(&client, &self.envoy, lane, path);
            assert_eq!((answer.status, refusing(&answer)), (503, Some((name, lane.name().to_owned()))));
        } else {
            let grpc: [(&str, &[u8]); 1] = [("content-type", b"application/grpc")];
            let headers = [lane.headers(), &grpc].concat();
            let answer = client.post(&self.envoy.url(path), &headers, Vec::new()).unwrap();
            let message = format!("breaker {name} of lane {} is open", lane.name());
            assert_eq!(answer.header("grpc-status"), Some("14"), "{answer:?}");
            assert_eq!(answer.header("grpc-message"), Some(message.as_str()), "{answer:?}");
        }
    }

    fn is_open(&self, lane: Lane, command: &str) -> bool {
        state(&self.envoy, lane, command) == 2
    }

    /// Waits for it: Envoy counts a stream as ended a moment before its filters hear so.
    fn opens(&self, lane: Lane, command: &str) {
        wait::until("the breaker to open", || Ok(self.is_open(lane, command).then_some(()))).unwrap();
    }

    /// Checks that so many calls may be under way at once, and not one more; and that the other lane's have room.
    fn has_places(&self, lane: Lane, command: &str, places: usize) {
        self.service.serve(lane, Manner::Hang);
        let held: Vec<_> = (0..places).map(|number| self.begin(lane, command, number)).collect();
        self.service.wait("all places to be taken", |book| book.under_way(lane) == places).unwrap();
        let before = refusals(&self.envoy, lane, "full");
        drop(self.begin(lane, command, places));
        wait::until("a refusal", || Ok((refusals(&self.envoy, lane, "full") == before + 1).then_some(())))
            .unwrap();
        self.calls(lane.other(), command, Manner::Status(200), 1);
        self.service.serve(lane, Manner::Status(200));
        self.service.wait("the held calls to end", |book| book.under_way(lane) == 0).unwrap();
        wait_for_streams(&self.envoy);
        drop(held);
    }
}

fn breakers_hold(entries: Entries) {
    for lane in Lane::ALL {
        let numbers = Numbers { lane, entries };
        // one worker: what has ended is counted when its streams are gone
        let site = Site::start(shipped(entries), 1);
        site.has_places(lane, VOUCHER, numbers.of(200, 100));
        site.has_places(lane, ACCOUNT, numbers.of(200, 50));

        // all those calls were well, and their window would have to pass first
        let site = Site::start(shipped(entries), 1);
        // three tenths of twenty
        site.calls(lane, ACCOUNT, Manner::Status(200), 14);
        site.calls(lane, ACCOUNT, Manner::GrpcAlone(14), 6);
        let opens_at_30 = (lane, entries) == (Lane::Shadow, Entries::With);
        if !opens_at_30 {
            assert!(!site.is_open(lane, ACCOUNT), "{lane:?} {entries:?}");
            // now 14 of 28 have failed
            site.calls(lane, ACCOUNT, Manner::GrpcAlone(14), 8);
        }
        site.opens(lane, ACCOUNT);
        // a cache that is slow is as bad as one that fails
        site.calls(lane, VOUCHER, Manner::Status(200), 10);
        site.calls(lane, VOUCHER, Manner::Late(200, Duration::from_millis(300)), 10);
        site.opens(lane, VOUCHER);

        for (command, path) in
            [(VOUCHER, "/voucher/code/7"), (ACCOUNT, "/account.core.AccountService/GetAccount")]
        {
            site.refuses(lane, command, path);
            site.calls(lane.other(), command, Manner::Status(200), 1);
            assert!(!site.is_open(lane.other(), command));
        }
    }
}

#[test]
fn each_breaker_of_the_mappings_holds_to_what_its_entry_for_the_lane_says() {
    breakers_hold(Entries::With);
}

#[test]
fn without_entries_for_the_lane_its_breakers_have_the_normal_values_and_their_own_state() {
    breakers_hold(Entries::Without);
}
