//! What subjects take of Redis's memory, and what becomes of them when it is nearly used up.

use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;

use crate::support::{
    HOUR, MINUTE, PATIENT, Shim, bucket, check, left, ready_store, rejected, shim_on_cluster, shim_on_redis,
    sliding,
};

/// What a million subjects may take, in bytes: 250 MB.
const A_MILLION_TAKE: u64 = 250_000_000;
/// Checks in one batch, as many as a shim sends at once.
const BATCH: usize = 256;

fn used_memory(redis: &Redis) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query(&mut redis.connect().unwrap()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().parse().unwrap()
}

/// The check of a quiet user: one limit of two windows, under a key as the engine makes it.
fn visit(user: u64) -> Check {
    let key = format!("ads_voucher:{{u{user:07}}}:per_user");
    check(&[(&key, 1, &[sliding(100, MINUTE), sliding(1000, HOUR)])])
}

/// Has these users ask, a third of them once, a third twice and a third three times, and returns how many bytes each
/// of them takes.
async fn bytes_per_subject(redis: &Redis, store: &RedisStore, users: u64) -> u64 {
    let ask = async |users: &[u64]| {
        let checks: Vec<Check> = users.iter().copied().map(visit).collect();
        let taken = store.take_with_time(&checks, Duration::from_millis(20)).await;
        assert!(taken.iter().all(Result::is_ok));
    };
    // what the connections and the script take is no subject's
    ask(&[u64::MAX; BATCH]).await;
    let before = used_memory(redis);
    for visits in 1..=3 {
        let asking: Vec<u64> = (0..users).filter(|user| user % 3 + 1 >= visits).collect();
        for batch in asking.chunks(BATCH) {
            ask(batch).await;
        }
    }
    (used_memory(redis) - before).div_ceil(users)
}

#[tokio::test]
async fn a_million_quiet_subjects_would_fit_into_250_megabytes() {
    let redis = Redis::start().unwrap();
    let each = bytes_per_subject(&redis, &ready_store(&redis).await, 20_000).await;
    assert!(each * 1_000_000 < A_MILLION_TAKE, "a subject takes {each} bytes");
}

/// Has a Redis use 85 % of what it may use, most of it for this key, which is not ours.
fn fill(redis: &Redis, key: &str) {
    run::<()>(redis, &["SET", key, &"x".repeat(8_000_000)]);
    let most = used_memory(redis) * 100 / 85;
    run::<()>(redis, &["CONFIG", "SET", "maxmemory", &most.to_string()]);
}

fn run<T: redis::FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect().unwrap()).unwrap()
}

/// Asks for unseen subjects under keys that `key` makes until this is the answer to one.
async fn until_unseen_are(
    shim: &Shim,
    key: impl Fn(u32) -> String,
    is_awaited: impl Fn(&CheckAnswer) -> bool,
) {
    let asked = async {
        for at in 0.. {
            if is_awaited(&shim.ask(check(&[(&key(at), 1, &[sliding(10, HOUR)])])).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENT, asked).await.expect("the shim sees how full redis is");
}

fn is_full(answer: &CheckAnswer) -> bool {
    *answer == CheckAnswer::Failed { error: StoreError::Full }
}

fn is_allowed(answer: &CheckAnswer) -> bool {
    matches!(answer, CheckAnswer::Allowed { .. })
}

#[tokio::test]
async fn a_nearly_full_redis_goes_on_for_those_it_knows_and_refuses_unseen_ones_until_there_is_room() {
    let (shim, redis) = shim_on_redis().await;
    let windows = [sliding(10, HOUR), bucket(10, HOUR, 10)];
    let (known, unseen) = (("known:{a}", 1, &windows[..]), ("unseen:{a}", 1, &windows[..]));
    assert_eq!(left(&shim.ask(check(&[known])).await), [[9, 9]]);
    fill(&redis, "other");
    until_unseen_are(&shim, |at| format!("late{at}"), is_full).await;
    let ratio = format!(
        "lanekeeper_shim_redis_memory_ratio{{node=\"{}\"}}",
        redis.url().replace("redis+unix://", "")
    );
    let ratio = shim.metric(&ratio).await;
    assert!((0.8..1.0).contains(&ratio), "{ratio}");

    assert_eq!(left(&shim.ask(check(&[known])).await), [[8, 8]], "who is counted goes on");
    assert!(is_full(&shim.ask(check(&[unseen])).await));
    assert!(is_full(&shim.ask(check(&[known, unseen])).await), "all or nothing");
    let look = Check { keys: vec![KeyCheck::take("unseen:{a}", 1, windows.to_vec()).peek()] };
    assert_eq!(left(&shim.ask(look).await), [[10, 10]], "a look takes no room");
    assert_eq!(left(&shim.ask(check(&[known])).await), [[7, 7]], "nothing was charged for the unseen");
    rejected(&shim.ask(check(&[("known:{a}", 8, &windows)])).await);
    assert_eq!(run::<u32>(&redis, &["EXISTS", "unseen:{a}"]), 0);
    assert!(shim.metric("lanekeeper_shim_store_errors_total{kind=\"full\"}").await >= 3.0);

    run::<()>(&redis, &["DEL", "other"]);
    until_unseen_are(&shim, |at| format!("later{at}"), is_allowed).await;
    assert_eq!(left(&shim.ask(check(&[unseen])).await), [[9, 9]]);
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    let shown = async {
        while shim.get("/metrics").await.text().await.unwrap().contains("redis_memory_ratio{") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENT, shown).await.expect("nothing is shown of a redis without a limit");
}

#[tokio::test]
async fn a_node_of_a_cluster_that_is_nearly_full_refuses_unseen_subjects_alone() {
    let (shim, cluster) = shim_on_cluster().await;
    // `{b}` is in a slot of the first node, `{c}` in one of the second
    fill(&cluster.nodes[0].redis, "{b}");
    until_unseen_are(&shim, |at| format!("late{at}:{{b}}"), is_full).await;
    let windows = [sliding(10, HOUR)];
    let (full, free) = (("new:{b}", 1, &windows[..]), ("new:{c}", 1, &windows[..]));
    assert!(is_full(&shim.ask(check(&[full])).await));
    assert!(is_full(&shim.ask(check(&[full, free])).await));
    assert_eq!(left(&shim.ask(check(&[free])).await), [[9]], "nothing was charged with the full one's");
}

#[tokio::test]
async fn a_user_that_may_not_ask_how_full_redis_is_counts_all_the_same() {
    let redis = Redis::start().unwrap();
    run::<()>(&redis, &["ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-info"]);
    fill(&redis, "other");
    let url = format!("{}?user=blind&pass=secret", redis.url());
    let shim = Shim::start(App::new(RedisStore::open(&url, PATIENT).unwrap())).await;
    shim.until_ready().await;
    assert_eq!(left(&shim.ask(check(&[("new", 1, &[sliding(10, HOUR)])])).await), [[9]]);
    assert!(!shim.get("/metrics").await.text().await.unwrap().contains("redis_memory_ratio{"));
}
