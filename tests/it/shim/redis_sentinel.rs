//! What is special to Sentinel: the master is another server all of a sudden.

use std::time::Duration;

use lanekeeper_engine::wire::{CheckAnswer, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::{ACL_RULES, Options, RedisStore, SENTINEL_ACL_RULES, TlsFiles};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::sentinel::{Setup, Watched};
use lanekeeper_tests::redis::tls::Ca;

use crate::hash::Counted;
use crate::support::{HOUR, PATIENT, Shim, allowed, check, cut_off, left, sliding};

fn run<T: redis::FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect().unwrap()).unwrap()
}

async fn shim_at(url: &str) -> Shim {
    let shim = Shim::start(App::new(RedisStore::open(url, PATIENT).unwrap())).await;
    shim.until_ready().await;
    shim
}

async fn asks_one(shim: &Shim) -> CheckAnswer {
    shim.ask(check(&[("k:{a}", 1, &[sliding(10, HOUR)])])).await
}

#[tokio::test]
async fn fails_at_once_while_there_is_no_master_and_goes_on_with_the_next_one() {
    let mut watched = Watched::start().unwrap();
    let shim = shim_at(&watched.url()).await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
    // As if the first master's clock were half a minute ahead.
    let seen: u64 = run(&watched.servers[0], &["HGET", "k:{a}", "t"]);
    let ahead = seen + 30_000_000;
    let _: u64 = run(&watched.servers[0], &["HSET", "k:{a}", "t", &ahead.to_string()]);
    watched.settle().unwrap();
    watched.servers[0].kill();
    for _ in 0..3 {
        // The store's patience is longer than the test's: only an answer that does not wait for it comes in time.
        let answer = tokio::time::timeout(PATIENT / 2, asks_one(&shim)).await.expect("an answer at once");
        cut_off(&answer);
    }
    assert_eq!(shim.get("/readyz").await.status(), 503);
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[8]]);
    let seen: u64 = run(&watched.servers[1], &["HGET", "k:{a}", "t"]);
    assert_eq!(seen, ahead, "the time of a key does not run backwards");
    // The old master comes back empty, and as a master until the Sentinel sees it.
    watched.servers[0].start_again().unwrap();
    assert_eq!(left(&asks_one(&shim).await), [[7]]);
}

#[tokio::test]
async fn follows_a_master_that_steps_down() {
    let watched = Watched::start().unwrap();
    let shim = shim_at(&watched.url()).await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
    watched.settle().unwrap();
    watched.fail_over().unwrap();
    // Until the shim has moved, the old master counts what it then loses, or refuses as a replica does.
    let moved = async {
        while Counted::read(&run(&watched.servers[1], &["HGETALL", "k:{a}"]), "s1h").total == 1 {
            asks_one(&shim).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENT, moved).await.expect("the shim finds the new master");
    allowed(&asks_one(&shim).await);
}

#[tokio::test]
async fn needs_no_more_of_its_user_than_it_says() {
    let watched = Watched::start().unwrap();
    let rules = [ACL_RULES, SENTINEL_ACL_RULES].join(" ");
    let user =
        [&["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~*"], &rules.split(' ').collect::<Vec<_>>()[..]];
    let _: String = run(&watched.servers[0], &user.concat());
    let url = format!("{}/3", watched.url()).replace("://", "://lanekeeper:secret@");
    let shim = shim_at(&url).await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
    assert_eq!(run::<u64>(&watched.servers[0], &["EXISTS", "k:{a}"]), 0, "it counts in its own database");
}

#[tokio::test]
async fn goes_on_with_the_next_master_through_tls_and_with_a_password() {
    let ca = Ca::new().unwrap();
    let setup = Setup { ca: Some(&ca), password: Some("secret"), ..Setup::default() };
    let mut watched = Watched::start_as(&setup).unwrap();
    let files = TlsFiles { ca: Some(ca.file()), client: Some(ca.sign("shim").unwrap()) };
    let open = |url: &str| {
        App::new(
            RedisStore::open_with(url, &Options { tls: files.clone(), ..Options::within(PATIENT) }).unwrap(),
        )
    };
    let stranger = Shim::start(open(&watched.url())).await;
    let reason = stranger.get("/readyz").await.text().await.unwrap();
    assert!(reason.contains("NOAUTH"), "the master asks for a password: {reason}");

    let shim = Shim::start(open(&watched.url().replace("://", "://:secret@"))).await;
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
    watched.settle().unwrap();
    watched.servers[0].kill();
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[8]]);
}

#[tokio::test]
async fn says_that_no_sentinel_knows_the_master() {
    let watched = Watched::start().unwrap();
    let url = watched.url().replace("/counters", "/countesr");
    let shim = Shim::start(App::new(RedisStore::open(&url, PATIENT).unwrap())).await;
    let answer = shim.get("/readyz").await;
    assert_eq!(answer.status(), 503);
    let text = answer.text().await.unwrap();
    assert!(text.contains("knows no master named countesr"), "{text}");
}

#[test]
fn needs_the_name_of_the_master() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    for url in ["redis-sentinel://127.0.0.1", "redis-sentinel://127.0.0.1:1,127.0.0.1:2/"] {
        let error = RedisStore::open(url, PATIENT).err().unwrap().to_string();
        assert!(error.starts_with("the name of the master follows"), "{error}");
    }
}

#[tokio::test]
async fn a_master_that_sentinel_has_just_named_decides_nothing_while_it_learns() {
    let mut watched = Watched::start().unwrap();
    let options = Options { learning_period: Duration::from_secs(1), ..Options::within(PATIENT) };
    let shim = Shim::start(App::new(RedisStore::open_with(&watched.url(), &options).unwrap())).await;
    shim.until_ready().await;
    let ask = || check(&[("k:{a}", 1, &[sliding(10, HOUR)])]);
    assert_eq!(left(&shim.ask(ask()).await), [[9]], "the first one took over from nobody");
    watched.settle().unwrap();
    watched.servers[0].kill();
    let learning = "lanekeeper_shim_redis_refusals_total{code=\"LEARNING\"}";
    assert_eq!(shim.metric(learning).await, 0.0);
    loop {
        match shim.ask(ask()).await {
            CheckAnswer::Failed { error: StoreError::Refused } if shim.metric(learning).await > 0.0 => break,
            CheckAnswer::Failed { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
            decided => panic!("{decided:?}"),
        }
    }
    let answer = loop {
        match shim.ask(ask()).await {
            CheckAnswer::Failed { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
            decided => break decided,
        }
    };
    assert_eq!(left(&answer), [[8]]);
}
