//! What Redis refuses: nothing of it is charged, and each refusal has a name among the metrics.

use std::collections::BTreeMap;
use std::thread;

use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{CheckAnswer, DecideRequest, KeySpent, Recorded, Slice, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::wait;

use crate::hash::Counted;
use crate::support::{
    HOUR, MINUTE, PATIENT, Shim, batch, bucket, check, every_algorithm, left, log, rejected, shim_on_redis,
    sliding,
};

const REFUSED: CheckAnswer = CheckAnswer::Failed { error: StoreError::Refused };

fn run<T: redis::FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    try_run(redis, words).unwrap()
}

fn try_run<T: redis::FromRedisValue>(redis: &Redis, words: &[&str]) -> redis::RedisResult<T> {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect()?)
}

/// Everything in the store: each key with its fields, but for when it was seen last.
fn contents(redis: &Redis) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut keys: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for key in run::<Vec<String>>(redis, &["KEYS", "*"]) {
        let mut fields: BTreeMap<String, String> = run(redis, &["HGETALL", &key]);
        fields.remove("t");
        keys.insert(key, fields);
    }
    keys
}

async fn refusals(shim: &Shim, code: &str) -> f64 {
    shim.metric(&format!("lanekeeper_shim_redis_refusals_total{{code=\"{code}\"}}")).await
}

/// Asks for every algorithm at once and each alone, and holds the store to refuse all of it and to charge nothing.
async fn refuses_everything(shim: &Shim, redis: &Redis) {
    let before = contents(redis);
    let all = every_algorithm(10);
    let keys: Vec<_> = all.iter().map(|(key, window)| (*key, 1, std::slice::from_ref(window))).collect();
    assert_eq!(shim.ask(check(&keys)).await, REFUSED);
    for key in keys {
        assert_eq!(shim.ask(check(&[key])).await, REFUSED, "{}", key.0);
    }
    assert_eq!(contents(redis), before);
}

/// Charges one of ten for each algorithm, so that there is something to charge wrongly.
async fn takes_one_of_each(shim: &Shim) {
    for (key, window) in every_algorithm(10) {
        assert_eq!(left(&shim.ask(check(&[(key, 1, &[window])])).await), [[9]]);
    }
}

/// The next of ten: what was refused is not missing.
async fn takes_the_next_of_each(shim: &Shim) {
    for (key, window) in every_algorithm(10) {
        assert_eq!(left(&shim.ask(check(&[(key, 1, &[window])])).await), [[8]], "{key}");
    }
}

#[tokio::test]
async fn a_key_of_another_type_fails_its_check_alone_and_charges_nothing() {
    let (shim, redis) = shim_on_redis().await;
    let foreign: [&[&str]; 5] = [
        &["SET", "string", "x"],
        &["RPUSH", "list", "x"],
        &["SADD", "set", "x"],
        &["ZADD", "sorted", "1", "x"],
        &["XADD", "stream", "*", "x", "y"],
    ];
    let windows = [sliding(100, HOUR), bucket(100, HOUR, 100)];
    for (used, command) in foreign.into_iter().enumerate() {
        run::<redis::Value>(&redis, command);
        let key = command[1];
        let before: Vec<u8> = run(&redis, &["DUMP", key]);
        let both = check(&[("k", 1, &windows), (key, 1, &windows)]);
        let answers = shim
            .decide(&batch(0, vec![both, check(&[("k", 1, &windows)]), check(&[(key, 1, &windows)])]))
            .await;
        assert_eq!((&answers[0], &answers[2]), (&REFUSED, &REFUSED), "{key}");
        let rest = 99 - u32::try_from(used).unwrap();
        assert_eq!(left(&answers[1]), [[rest, rest]], "{key}");
        assert_eq!(run::<Vec<u8>>(&redis, &["DUMP", key]), before, "{key}");
    }
    assert_eq!(refusals(&shim, "WRONGTYPE").await, 10.0);
}

#[tokio::test]
async fn a_full_redis_charges_nothing() {
    let (shim, redis) = shim_on_redis().await;
    takes_one_of_each(&shim).await;
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
    refuses_everything(&shim, &redis).await;
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    takes_the_next_of_each(&shim).await;
    assert_eq!(refusals(&shim, "OOM").await, 6.0);
}

#[tokio::test]
async fn what_a_full_redis_is_told_of_an_outage_surely_does_not_count() {
    let (shim, redis) = shim_on_redis().await;
    let slices = vec![Slice { age_us: 0, tokens: 3 }];
    let spent = |id| KeySpent {
        key: "k".into(),
        shards: 1,
        id,
        slices: slices.clone(),
        windows: [sliding(10, HOUR)].into(),
    };
    let tell = |id| DecideRequest { spent: vec![spent(id)], ..batch(0, Vec::new()) };
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(shim.answer(&tell(1)).await.spent, [Recorded::NotRecorded(StoreError::Refused)]);
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(left(&shim.ask(check(&[("k", 1, &[sliding(10, HOUR)])])).await), [[9]]);
    assert_eq!(shim.answer(&tell(2)).await.spent, [Recorded::Recorded]);
    assert_eq!(left(&shim.ask(check(&[("k", 1, &[sliding(10, HOUR)])])).await), [[5]]);
}

#[tokio::test]
async fn a_full_redis_does_not_charge_in_part_what_also_has_to_be_forgotten() {
    let (shim, redis) = shim_on_redis().await;
    let short = std::time::Duration::from_millis(20);
    let windows = [sliding(10, short), log(10, short), sliding(10, HOUR)];
    assert_eq!(left(&shim.ask(check(&[("k", 1, &windows)])).await), [[9, 9, 9]]);
    // What forgets needs no memory, so a full Redis lets it pass.
    tokio::time::sleep(2 * short).await;
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
    let before = contents(&redis);
    assert_eq!(shim.ask(check(&[("k", 1, &windows)])).await, REFUSED);
    assert_eq!(contents(&redis), before);
    run::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(left(&shim.ask(check(&[("k", 1, &windows)])).await), [[9, 9, 8]]);
}

#[tokio::test]
async fn a_master_without_the_replicas_it_has_to_have_charges_nothing() {
    let (shim, redis) = shim_on_redis().await;
    takes_one_of_each(&shim).await;
    run::<()>(&redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    refuses_everything(&shim, &redis).await;
    run::<()>(&redis, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    takes_the_next_of_each(&shim).await;
    assert_eq!(refusals(&shim, "NOREPLICAS").await, 6.0);
}

#[tokio::test]
async fn a_replica_charges_nothing_and_goes_on_once_it_is_a_master() {
    let (shim, redis) = shim_on_redis().await;
    takes_one_of_each(&shim).await;
    run::<()>(&redis, &["REPLICAOF", "127.0.0.1", "1"]);
    refuses_everything(&shim, &redis).await;
    run::<()>(&redis, &["REPLICAOF", "NO", "ONE"]);
    shim.until_ready().await;
    takes_the_next_of_each(&shim).await;
    assert!(refusals(&shim, "READONLY").await >= 1.0);
}

#[tokio::test]
async fn somebody_elses_endless_script_holds_nobody_up_and_is_killed_without_a_trace() {
    let (shim, redis) = shim_on_redis().await;
    takes_one_of_each(&shim).await;
    run::<()>(&redis, &["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let library = "#!lua name=endless\nredis.register_function('endless', function() while true do end end)";
    run::<String>(&redis, &["FUNCTION", "LOAD", library]);
    let endless: [(&[&str], &[&str]); 2] = [
        (&["EVAL", "while true do end", "0"], &["SCRIPT", "KILL"]),
        (&["FCALL", "endless", "0"], &["FUNCTION", "KILL"]),
    ];
    let mut refused = 0.0;
    for (begin, kill) in endless {
        let mut connection = redis.connect().unwrap();
        let runs = thread::spawn(move || {
            redis::cmd(begin[0])
                .arg(&begin[1..])
                .query::<redis::Value>(&mut connection)
                .unwrap_err()
                .to_string()
        });
        wait::until("a busy redis", || {
            let pong = try_run::<String>(&redis, &["PING"]);
            Ok(pong.is_err_and(|error| error.code() == Some("BUSY")).then_some(()))
        })
        .unwrap();
        for (key, window) in every_algorithm(10) {
            let answer = tokio::time::timeout(PATIENT / 2, shim.ask(check(&[(key, 1, &[window])])));
            assert_eq!(answer.await.expect("an answer at once"), REFUSED);
        }
        assert!(refusals(&shim, "BUSY").await > refused);
        refused = refusals(&shim, "BUSY").await;
        run::<()>(&redis, kill);
        assert!(runs.join().unwrap().contains("killed"), "it was killed");
        shim.until_ready().await;
    }
    takes_the_next_of_each(&shim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_script_killed_in_mid_run_has_charged_nothing() {
    let (shim, redis) = shim_on_redis().await;
    run::<()>(&redis, &["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let windows: Vec<Window> = (1..=16).map(|hours| sliding(1000, HOUR * hours)).collect();
    let names: Vec<String> = (0..256).map(|key| format!("k{key}:{{a}}")).collect();
    // The longest check that there is, so that there is time to kill it.
    let widest = check(&names.iter().map(|name| (&name[..], 1, &windows[..])).collect::<Vec<_>>());
    let mut connection = redis.connect().unwrap();
    let killer = thread::spawn(move || {
        // Not busy, or has written already: again.
        while redis::cmd("SCRIPT").arg("KILL").exec(&mut connection).is_err() {}
    });
    let mut charged = 0;
    while left_or_killed(&shim.ask(widest.clone()).await, 999 - charged) {
        charged += 1;
        assert!(charged < 900, "it was never killed");
    }
    killer.join().unwrap();
    shim.until_ready().await;
    for name in &names {
        let count = Counted::read(&run(&redis, &["HGETALL", name]), "s1h").total;
        assert_eq!(count, u64::from(charged), "{name}");
    }
    assert!(left_or_killed(&shim.ask(widest).await, 999 - charged), "it works again");
    assert_eq!(refusals(&shim, "ERR").await, 1.0);
}

/// Whether it was allowed and so much is left in each window; if not, it was killed.
fn left_or_killed(answer: &CheckAnswer, rest: u32) -> bool {
    let is_killed = *answer == REFUSED;
    assert!(is_killed || left(answer).iter().flatten().all(|left| *left == rest), "{answer:?}");
    !is_killed
}

#[tokio::test]
async fn a_password_that_changes_is_wrong_from_the_next_connection_on() {
    let redis = Redis::start().unwrap();
    let user = ["ACL", "SETUSER", "lanekeeper", "on", "~*", "+@all"];
    run::<()>(&redis, &[&user[..], &[">secret"]].concat());
    let url = format!("{}?user=lanekeeper&pass=secret", redis.url());
    let shim = Shim::start(App::new(RedisStore::open(&url, PATIENT).unwrap())).await;
    shim.until_ready().await;
    let ask = || check(&[("k:{a}", 1, &[sliding(10, MINUTE)])]);
    assert_eq!(left(&shim.ask(ask()).await), [[9]]);
    run::<()>(&redis, &["ACL", "SETUSER", "lanekeeper", "resetpass", ">other"]);
    assert_eq!(left(&shim.ask(ask()).await), [[8]], "whoever is in stays in");
    run::<i64>(&redis, &["CLIENT", "KILL", "USER", "lanekeeper"]);
    until_refused(&shim, "WRONGPASS").await;
    assert_eq!(shim.ask(ask()).await, REFUSED);
    run::<()>(&redis, &["ACL", "SETUSER", "lanekeeper", "resetpass", ">secret"]);
    shim.until_ready().await;
    assert_eq!(left(&shim.ask(ask()).await), [[7]]);
}

#[tokio::test]
async fn a_password_that_is_asked_for_all_of_a_sudden_is_missing() {
    let (shim, redis) = shim_on_redis().await;
    let mut admin = redis.connect().unwrap();
    let mut run = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).exec(&mut admin).unwrap();
    run(&["CONFIG", "SET", "requirepass", "secret"]);
    let ask = || check(&[("k:{a}", 1, &[sliding(10, MINUTE)])]);
    assert_eq!(left(&shim.ask(ask()).await), [[9]], "whoever is in stays in");
    run(&["CLIENT", "KILL", "TYPE", "normal"]);
    until_refused(&shim, "NOAUTH").await;
    assert_eq!(shim.ask(ask()).await, REFUSED);
    run(&["CONFIG", "SET", "requirepass", ""]);
    shim.until_ready().await;
    assert_eq!(left(&shim.ask(ask()).await), [[8]]);
}

/// Waits until an attempt to connect was refused.
async fn until_refused(shim: &Shim, code: &str) {
    let refused = async {
        while refusals(shim, code).await == 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENT, refused).await.expect("it is refused");
}

#[tokio::test]
async fn a_permission_that_is_taken_away_charges_nothing_more() {
    let redis = Redis::start().unwrap();
    let user = ["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~*", "+@all"];
    run::<()>(&redis, &user);
    let url = format!("{}?user=lanekeeper&pass=secret", redis.url());
    let shim = Shim::start(App::new(RedisStore::open(&url, PATIENT).unwrap())).await;
    shim.until_ready().await;
    takes_one_of_each(&shim).await;
    for command in ["evalsha", "time", "hmget"] {
        run::<()>(&redis, &["ACL", "SETUSER", "lanekeeper", &format!("-{command}")]);
        refuses_everything(&shim, &redis).await;
        run::<()>(&redis, &["ACL", "SETUSER", "lanekeeper", &format!("+{command}")]);
    }
    takes_the_next_of_each(&shim).await;
    assert_eq!(refusals(&shim, "NOPERM").await, 18.0);
    // A key beyond what the user may touch.
    run::<()>(&redis, &["ACL", "SETUSER", "lanekeeper", "resetkeys", "~ours:*"]);
    let window = [sliding(10, HOUR)];
    assert_eq!(shim.ask(check(&[("ours:{a}", 1, &window), ("theirs:{a}", 1, &window)])).await, REFUSED);
    assert_eq!(left(&shim.ask(check(&[("ours:{a}", 10, &window)])).await), [[0]]);
    rejected(&shim.ask(check(&[("ours:{a}", 1, &window)])).await);
}
