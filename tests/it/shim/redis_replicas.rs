//! Answers that wait for replicas: what a failover loses was never answered.

use std::time::Duration;

use lanekeeper_engine::wire::{CheckAnswer, DecideRequest, KeySpent, Recorded, Slice, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::{ACL_RULES, Options, RedisStore, SENTINEL_ACL_RULES, WAIT_ACL_RULES};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use lanekeeper_tests::redis::sentinel::Watched;
use lanekeeper_tests::wait;

use crate::support::{HOUR, PATIENT, Shim, allowed, batch, check, left, sliding};

const LIMIT: u32 = 40;
/// Of no use but to be over.
const SHORT: Duration = Duration::from_secs(4);
/// The same, before Sentinel leads a lost replica back to its master (`failover-timeout`, 3 s).
const SHORTER: Duration = Duration::from_secs(2);
const REFUSED: CheckAnswer = CheckAnswer::Failed { error: StoreError::Refused };

fn run<T: redis::FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect().unwrap()).unwrap()
}

/// A shim whose answers wait for so many replicas, and no longer than `timeout`.
async fn shim_at(url: &str, timeout: Duration, wait_replicas: u32) -> Shim {
    let store = RedisStore::open_with(url, &Options { wait_replicas, ..Options::within(timeout) }).unwrap();
    let shim = Shim::start(App::new(store)).await;
    shim.until_ready().await;
    shim
}

async fn asks_one(shim: &Shim) -> CheckAnswer {
    shim.ask(check(&[("k:{a}", 1, &[sliding(LIMIT, HOUR)])])).await
}

async fn refused_for_replicas(shim: &Shim) -> f64 {
    shim.metric("lanekeeper_shim_redis_refusals_total{code=\"NOREPLICAS\"}").await
}

#[tokio::test]
async fn answers_what_the_replica_has_and_nothing_else() {
    let watched = Watched::start().unwrap();
    let master = format!("redis://{}", watched.addresses[0]);
    let shim = shim_at(&master, PATIENT, 1).await;
    assert_eq!(left(&asks_one(&shim).await), [[LIMIT - 1]]);
    let offset = |server| match run(&watched.servers[server], &["HGET", "k:{a}", "t"]) {
        redis::Value::BulkString(seen) => String::from_utf8(seen).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(offset(0), offset(1), "it has what was answered");

    let hasty = shim_at(&master, SHORT, 1).await;
    watched.servers[1].freeze().unwrap();
    let answered = tokio::time::timeout(PATIENT / 2, asks_one(&hasty)).await;
    watched.servers[1].thaw().unwrap();
    assert_eq!(answered.expect("an answer in time"), REFUSED);
    assert_eq!(refused_for_replicas(&hasty).await, 1.0);
    // It was charged, and nobody spends it.
    assert_eq!(left(&asks_one(&shim).await), [[LIMIT - 3]]);

    watched.servers[1].freeze().unwrap();
    let windows = [sliding(LIMIT, HOUR)].into();
    let slices = vec![Slice { age_us: 0, tokens: 1 }];
    let told = KeySpent { key: "k:{a}".into(), shards: 1, id: 1, slices, windows };
    let told = DecideRequest { spent: vec![told], ..batch(0, Vec::new()) };
    let answered = tokio::time::timeout(PATIENT / 2, hasty.answer(&told)).await;
    watched.servers[1].thaw().unwrap();
    // it counts, unless the replica takes over without it
    assert_eq!(answered.expect("an answer in time").spent, [Recorded::Failed(StoreError::Refused)]);
}

#[tokio::test]
async fn fails_where_there_are_fewer_replicas_than_are_waited_for() {
    let redis = Redis::start().unwrap();
    let shim = shim_at(&redis.url(), SHORT, 1).await;
    assert_eq!(asks_one(&shim).await, REFUSED);
    let cluster = Cluster::start().unwrap();
    let shim = shim_at(&cluster.url(), SHORT, 1).await;
    assert_eq!(asks_one(&shim).await, REFUSED);
    let window = [sliding(LIMIT, HOUR)];
    let all = check(&["{b}", "{c}", "{a}"].map(|key| (key, 1, &window[..])));
    assert_eq!(shim.ask(all).await, REFUSED);
    let none = shim_at(&cluster.url(), PATIENT, 0).await;
    allowed(&asks_one(&none).await);
}

#[tokio::test]
async fn waits_for_the_replicas_of_each_node_of_a_cluster() {
    let mut cluster = Cluster::start().unwrap();
    cluster.add_replica(0).unwrap();
    let shim = shim_at(&cluster.url(), SHORT, 1).await;
    let window = [sliding(LIMIT, HOUR)];
    let ask = |keys: &[&str]| check(&keys.iter().map(|key| (*key, 1, &window[..])).collect::<Vec<_>>());
    assert_eq!(left(&shim.ask(ask(&["{b}"])).await), [[LIMIT - 1]]);
    assert_eq!(shim.ask(ask(&["{c}"])).await, REFUSED, "another node, which has none");
    assert_eq!(shim.ask(ask(&["{b}", "{c}"])).await, REFUSED);
    assert_eq!(left(&shim.ask(ask(&["{b}"])).await), [[LIMIT - 2]], "what the first took was given back");
}

/// How many are admitted by a master whose replica hears half of it, and then by that replica.
async fn admitted_over_a_failover(wait_replicas: u32) -> u32 {
    let mut watched = Watched::start().unwrap();
    let shim = shim_at(&watched.url(), SHORTER, wait_replicas).await;
    let mut admitted = 0;
    for _ in 0..LIMIT / 2 {
        allowed(&asks_one(&shim).await);
        admitted += 1;
    }
    watched.settle().unwrap();
    // From here on it hears of nothing: nobody listens there.
    run::<()>(&watched.servers[1], &["REPLICAOF", "127.0.0.1", "1"]);
    let last = tokio::join!(asks_one(&shim), asks_one(&shim), asks_one(&shim));
    for answer in <[CheckAnswer; 3]>::from(last) {
        admitted += u32::from(matches!(answer, CheckAnswer::Allowed { .. }));
    }
    watched.servers[0].kill();
    let is_master = || {
        // a replica that becomes a master ends its connections
        let role = watched.servers[1]
            .connect()
            .ok()
            .and_then(|mut connection| redis::cmd("ROLE").query::<Vec<redis::Value>>(&mut connection).ok());
        let is_master =
            role.is_some_and(|role| role.first() == Some(&redis::Value::BulkString(b"master".to_vec())));
        Ok(is_master.then_some(()))
    };
    wait::until("a new master", is_master).unwrap();
    // Its answers wait for no other replica, which there is none of any more.
    let after = shim_at(&watched.url(), PATIENT, 0).await;
    while let CheckAnswer::Allowed { .. } = asks_one(&after).await {
        admitted += 1;
    }
    admitted
}

#[tokio::test]
async fn a_failover_forgets_nothing_that_was_answered() {
    assert_eq!(admitted_over_a_failover(1).await, LIMIT);
}

#[tokio::test]
async fn a_failover_sells_twice_what_was_answered_without_waiting() {
    assert_eq!(admitted_over_a_failover(0).await, LIMIT + 3);
}

#[tokio::test]
async fn needs_a_permission_more_and_says_so() {
    let watched = Watched::start().unwrap();
    for server in &watched.servers {
        let rules = [ACL_RULES, SENTINEL_ACL_RULES].join(" ");
        let user = [
            &["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~*"],
            &rules.split(' ').collect::<Vec<_>>()[..],
        ];
        run::<()>(server, &user.concat());
    }
    let url = watched.url().replace("://", "://lanekeeper:secret@");
    let store =
        RedisStore::open_with(&url, &Options { wait_replicas: 1, ..Options::within(PATIENT) }).unwrap();
    let shim = Shim::start(App::new(store)).await;
    assert_eq!(asks_one(&shim).await, REFUSED);
    let answer: serde_json::Value = shim.get("/readyz").await.json().await.unwrap();
    assert_eq!(answer["detail"], "redis does not let its user run wait: see --help");
    for server in &watched.servers {
        run::<()>(server, &["ACL", "SETUSER", "lanekeeper", WAIT_ACL_RULES]);
    }
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[LIMIT - 1]], "nothing was charged without it");
}
