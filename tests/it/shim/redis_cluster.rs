//! What is special to Redis Cluster: slots that move, keys in several slots, nodes that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lanekeeper_engine::lease::LeaseAsk;
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{Check, CheckAnswer, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::{ACL_RULES, CLUSTER_ACL_RULES, Options, RedisStore, TlsFiles};
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::cluster::{Cluster, Node};
use lanekeeper_tests::redis::tls::Ca;
use tokio::task::JoinSet;

use crate::hash::{Counted, Hash};
use crate::support::{
    HOUR, PATIENT, SECOND, Shim, allowed, bucket, check, cut_off, left, rejected, sliding, store_at,
};

/// Keys in the slots of the first, the second and the third node.
const KEYS: [&str; 3] = ["{b}", "{c}", "{a}"];

async fn store_on(cluster: &Cluster) -> Arc<RedisStore> {
    Arc::new(store_at(&cluster.url()).await)
}

fn node_of<'a>(cluster: &'a Cluster, key: &str) -> (usize, &'a Node, u16) {
    let slot: u16 = cluster.nodes[0].run(&["CLUSTER", "KEYSLOT", key]).unwrap();
    let at = cluster.owner(slot).unwrap();
    (at, &cluster.nodes[at], slot)
}

fn hash(cluster: &Cluster, key: &str) -> Hash {
    node_of(cluster, key).1.run(&["HGETALL", key]).unwrap()
}

fn three(cost: u32, windows: &[Window]) -> Check {
    check(&KEYS.map(|key| (key, cost, windows)))
}

/// How many of a thousand callers at once are allowed, who come in batches as those do that wait at a filter.
async fn admitted(store: &Arc<RedisStore>, check: &Check) -> usize {
    let mut batches = JoinSet::new();
    for _ in 0..40 {
        let (store, batch) = (Arc::clone(store), vec![check.clone(); 25]);
        batches.spawn(async move { store.decide(&batch, Duration::ZERO).await });
    }
    let answers = batches.join_all().await.concat();
    assert!(!answers.iter().any(|answer| matches!(answer, CheckAnswer::Failed { .. })), "{answers:?}");
    answers.iter().filter(|answer| matches!(answer, CheckAnswer::Allowed { .. })).count()
}

#[tokio::test]
async fn charges_no_key_of_a_check_that_a_key_on_another_node_refuses() {
    let cluster = Cluster::start().unwrap();
    assert_eq!(KEYS.map(|key| node_of(&cluster, key).0), [0, 1, 2], "each key is on a node of its own");
    let store = store_on(&cluster).await;
    let windows = [sliding(5, HOUR), bucket(5, HOUR, 5), sliding(50, SECOND)];
    for full in KEYS {
        allowed(&store.decide(&[check(&[(full, 3, &windows)])], SECOND).await[0]);
        let before = KEYS.map(|key| counts(&cluster, key));
        for _ in 0..3 {
            let answer = store.decide(&[three(3, &windows)], SECOND).await.remove(0);
            let CheckAnswer::Rejected { keys } = &answer else { panic!("not rejected: {answer:?}") };
            assert!(keys.iter().all(|key| key.granted == 0 && key.lease.is_none()), "{keys:?}");
            let answer = rejected(&answer);
            for (key, windows) in KEYS.iter().zip(answer) {
                assert_eq!(windows[0].remaining, if *key == full { 2 } else { 5 }, "{key} of {full}");
                assert_eq!(windows[0].wait_us > 0, *key == full, "{key} of {full}");
            }
        }
        assert_eq!(KEYS.map(|key| counts(&cluster, key)), before, "{full}");
        for key in KEYS {
            node_of(&cluster, key).1.run::<()>(&["DEL", key]).unwrap();
        }
    }
    assert_eq!(left(&store.decide(&[three(3, &windows)], SECOND).await[0]), [[2, 2, 47]; 3]);
}

/// What is used of the hour's window of `key`.
fn counts(cluster: &Cluster, key: &str) -> Counted {
    Counted::read(&hash(cluster, key), "s1h")
}

#[tokio::test]
async fn gives_back_exactly_what_was_charged() {
    let cluster = Cluster::start().unwrap();
    let store = store_on(&cluster).await;
    let windows = [sliding(100, HOUR), bucket(100, HOUR, 100)];
    let asked = |key, cost| check(&[(key, cost, &windows[..])]);
    allowed(&store.decide(&[asked("{b}", 7)], SECOND).await[0]);
    allowed(&store.decide(&[asked("{c}", 95)], SECOND).await[0]);
    allowed(&store.decide(&[asked("{a}", 100)], SECOND).await[0]);
    for cost in [1, 5, 6, 93] {
        rejected(&store.decide(&[three(cost, &windows)], SECOND).await[0]);
        let mut leased = three(cost, &windows);
        let lease = LeaseAsk { tokens: 50, life_ms: 30_000, drift: 1_000_000, nodes: 1 };
        leased.keys.iter_mut().for_each(|key| key.lease = Some(lease));
        rejected(&store.decide(&[leased], SECOND).await[0]);
    }
    let slack = 40_000_000;
    let counted = counts(&cluster, "{b}");
    assert_eq!((counted.total, counted.buckets.iter().map(|(_, count)| count).sum::<u64>()), (7, 7));
    let hash = hash(&cluster, "{b}");
    let debt: u64 = hash["b36000000/1"].split(' ').next().unwrap().parse().unwrap();
    assert!((7 * 36_000_000 - slack..=7 * 36_000_000).contains(&debt), "{debt}");
    assert_eq!(left(&store.decide(&[asked("{b}", 93)], SECOND).await[0])[0][0], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admits_exactly_the_limit_to_a_thousand_callers_at_once_of_keys_on_two_nodes() {
    let cluster = Cluster::start().unwrap();
    let store = store_on(&cluster).await;
    for round in 0..40 {
        let key = format!("k{round}");
        let windows = [sliding(100, HOUR), bucket(100, HOUR, 100)];
        let both = check(&[(&key, 1, &windows), ("other", 1, &[sliding(1_000_000, HOUR)])]);
        assert_eq!(admitted(&store, &both).await, 100, "{key}");
    }
    let total = counts(&cluster, "other").total;
    assert_eq!(total, 4_000, "what was rejected was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_and_repeats_no_charge_while_slots_move() {
    let cluster = Arc::new(Cluster::start().unwrap());
    let store = store_on(&cluster).await;
    let window = [sliding(1_000_000, HOUR)];
    let keys = ["first:{a}", "second:{a}"];
    let (from, _, slot) = node_of(&cluster, keys[0]);
    let to = (from + 1) % 3;
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        // Both keys at once, so that they are also asked for while one has moved and the other has not.
        let both = check(&keys.map(|key| (key, 1, &window[..])));
        let apart = check(&[(keys[caller % 2], 1, &window[..])]);
        callers.spawn(async move {
            let mut charged = [0, 0];
            while !done.load(Ordering::Relaxed) {
                allowed(&store.decide(std::slice::from_ref(&both), Duration::ZERO).await[0]);
                allowed(&store.decide(std::slice::from_ref(&apart), Duration::ZERO).await[0]);
                charged[caller % 2] += 2;
                charged[(caller + 1) % 2] += 1;
            }
            charged
        });
    }
    let moved = {
        let cluster = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || {
            for (from, to) in [(from, to), (to, from)].into_iter().cycle().take(10) {
                let (from, to) = (&cluster.nodes[from], &cluster.nodes[to]);
                cluster.begin_move(slot, from, to).unwrap();
                cluster.move_key(keys[0], from, to).unwrap();
                std::thread::sleep(Duration::from_millis(5));
                cluster.end_move(slot, from, to).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    moved.await.unwrap();
    done.store(true, Ordering::Relaxed);
    let charged =
        callers.join_all().await.into_iter().fold([0, 0], |sum, one| [sum[0] + one[0], sum[1] + one[1]]);
    assert!(charged[0] > 100, "{charged:?}");
    assert_eq!(keys.map(|key| counts(&cluster, key).total), charged);
}

#[tokio::test]
async fn follows_a_slot_that_has_no_keys_yet() {
    let cluster = Cluster::start().unwrap();
    let store = store_on(&cluster).await;
    let (from, source, slot) = node_of(&cluster, "new:{a}");
    let target = &cluster.nodes[(from + 1) % 3];
    cluster.begin_move(slot, source, target).unwrap();
    let ask = [check(&[("new:{a}", 1, &[sliding(10, HOUR)])])];
    for remaining in [9, 8] {
        assert_eq!(left(&store.decide(&ask, Duration::ZERO).await[0]), [[remaining]]);
    }
    assert_eq!(source.run::<u64>(&["EXISTS", "new:{a}"]).unwrap_or(0), 0, "it was asked where the slot goes");
    cluster.end_move(slot, source, target).unwrap();
    assert_eq!(left(&store.decide(&ask, Duration::ZERO).await[0]), [[7]]);
}

#[tokio::test]
async fn a_node_that_is_away_fails_its_own_keys_alone() {
    let mut cluster = Cluster::start().unwrap();
    for node in &cluster.nodes {
        // As large clusters are set, so that two thirds go on.
        node.run::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
    }
    let shim = Shim::start(App::new(RedisStore::open(&cluster.url(), PATIENT).unwrap())).await;
    shim.until_ready().await;
    let ask = |key| check(&[(key, 1, &[sliding(10, HOUR)])]);
    cluster.nodes[2].redis.kill();
    let answers = tokio::time::timeout(PATIENT / 2, async {
        [shim.ask(ask(KEYS[0])).await, shim.ask(ask(KEYS[1])).await, shim.ask(ask(KEYS[2])).await]
    });
    let answers = answers.await.expect("answers at once");
    assert_eq!([left(&answers[0]), left(&answers[1])], [[[9]], [[9]]]);
    cut_off(&answers[2]);
    assert_eq!(shim.get("/readyz").await.status(), 503);
    let all = shim.ask(three(1, &[sliding(10, HOUR)])).await;
    cut_off(&all);
    let kept = shim.ask(ask(KEYS[0])).await;
    assert_eq!(left(&kept), [[8]], "what could not be charged everywhere was given back");
}

#[tokio::test]
async fn needs_no_more_of_its_user_than_it_says() {
    let cluster = Cluster::start().unwrap();
    for node in &cluster.nodes {
        let rules = [ACL_RULES, CLUSTER_ACL_RULES].join(" ");
        let user = [
            &["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~*"],
            &rules.split(' ').collect::<Vec<_>>()[..],
        ];
        node.run::<()>(&user.concat()).unwrap();
    }
    let url = cluster.url().replace("://", "://lanekeeper:secret@");
    let shim = Shim::start(App::new(RedisStore::open(&url, PATIENT).unwrap())).await;
    shim.until_ready().await;
    let windows = [sliding(1, HOUR), bucket(1, HOUR, 1)];
    allowed(&shim.ask(check(&[(KEYS[2], 1, &windows)])).await);
    rejected(&shim.ask(three(1, &windows)).await);
    assert_eq!(left(&shim.ask(check(&[(KEYS[0], 1, &windows)])).await), [[0, 0]]);
    let (from, source, slot) = node_of(&cluster, "new:{a}");
    cluster.begin_move(slot, source, &cluster.nodes[(from + 1) % 3]).unwrap();
    assert_eq!(left(&shim.ask(check(&[("new:{a}", 1, &windows)])).await), [[0, 0]], "it may say ASKING");
}

#[tokio::test]
async fn counts_on_every_node_of_a_cluster_that_talks_nothing_but_tls() {
    let ca = Ca::new().unwrap();
    let cluster = Cluster::start_tls(&ca).unwrap();
    let files = TlsFiles { ca: Some(ca.file()), client: Some(ca.sign("shim").unwrap()) };
    let store =
        RedisStore::open_with(&cluster.url(), &Options { tls: files, ..Options::within(PATIENT) }).unwrap();
    let shim = Shim::start(App::new(store)).await;
    shim.until_ready().await;
    let windows = [sliding(2, HOUR)];
    assert_eq!(left(&shim.ask(check(&[(KEYS[1], 2, &windows)])).await), [[0]]);
    rejected(&shim.ask(three(1, &windows)).await);
    for (key, used) in KEYS.iter().zip([0, 2, 0]) {
        assert_eq!(counts(&cluster, key).total, used, "{key}");
    }
}

#[tokio::test]
async fn starts_before_its_cluster_does() {
    let mut cluster = Cluster::start().unwrap();
    for node in &mut cluster.nodes {
        node.redis.kill();
    }
    let shim = Shim::start(App::new(RedisStore::open(&cluster.url(), PATIENT).unwrap())).await;
    assert_eq!(shim.get("/readyz").await.status(), 503);
    let ask = || check(&[("k", 1, &[sliding(10, HOUR)])]);
    assert_eq!(shim.ask(ask()).await, CheckAnswer::Failed { error: StoreError::Unreachable });
    for node in &mut cluster.nodes {
        node.redis.start_again().unwrap();
    }
    shim.until_ready().await;
    let mut answer = shim.ask(ask()).await;
    while answer == (CheckAnswer::Failed { error: StoreError::Refused }) {
        // The nodes listen before they are a cluster again.
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = shim.ask(ask()).await;
    }
    allowed(&answer);
}

#[test]
fn has_no_databases() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    let error = RedisStore::open("redis-cluster://127.0.0.1:1/3", PATIENT).err().unwrap();
    assert_eq!(error.to_string(), "Redis Cluster has no other database than 0");
}
