//! Who is let in: TLS with certificates on both sides, users that may do little, passwords, database numbers.

use std::path::PathBuf;
use std::time::Duration;

use lanekeeper_engine::wire::{CheckAnswer, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::{ACL_RULES, AddressError, Options, RedisStore, TlsFiles};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::tls::{Ca, TlsRedis};
use redis::Value;

use crate::support::{HOUR, PATIENT, Shim, bucket, check, left, rejected, sliding};

fn run(redis: &Redis, words: &[&str]) -> Value {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect().unwrap()).unwrap()
}

async fn shim_at(url: &str, tls: &TlsFiles) -> Shim {
    Shim::start(App::new(
        RedisStore::open_with(url, &Options { tls: tls.clone(), ..Options::within(PATIENT) }).unwrap(),
    ))
    .await
}

/// What `/readyz` says of a store that is not ready.
async fn not_ready(shim: &Shim) -> String {
    let answer = shim.get("/readyz").await;
    assert_eq!(answer.status(), 503);
    answer.json::<serde_json::Value>().await.unwrap()["detail"].as_str().unwrap().to_owned()
}

async fn asks_one(shim: &Shim) -> CheckAnswer {
    shim.ask(check(&[("k:{a}", 1, &[sliding(10, HOUR)])])).await
}

#[tokio::test]
async fn counts_through_tls_with_a_certificate_on_both_sides() {
    let ca = Ca::new().unwrap();
    let tls = TlsRedis::start(&ca, "127.0.0.1").unwrap();
    let files = TlsFiles { ca: Some(ca.file()), client: Some(ca.sign("shim").unwrap()) };
    let shim = shim_at(&format!("rediss://{}", tls.address), &files).await;
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
}

#[tokio::test]
async fn counts_through_tls_in_a_cluster_whose_nodes_it_is_told() {
    let ca = Ca::new().unwrap();
    let tls = TlsRedis::start_cluster(&ca, "127.0.0.1").unwrap();
    let files = TlsFiles { ca: Some(ca.file()), client: Some(ca.sign("shim").unwrap()) };
    let shim = shim_at(&format!("rediss-cluster://{}", tls.address), &files).await;
    shim.until_ready().await;
    let apart = || check(&[("one", 1, &[sliding(10, HOUR)]), ("two", 1, &[sliding(10, HOUR)])]);
    assert_eq!(left(&shim.ask(apart()).await), [[9], [9]]);
}

#[tokio::test]
async fn tells_what_is_wrong_with_the_certificates() {
    let (ca, stranger) = (Ca::new().unwrap(), Ca::new().unwrap());
    let (tls, elsewhere) =
        (TlsRedis::start(&ca, "127.0.0.1").unwrap(), TlsRedis::start(&ca, "elsewhere").unwrap());
    let client = Some(ca.sign("shim").unwrap());
    let cases = [
        (&tls, TlsFiles { ca: Some(stranger.file()), client: client.clone() }, "invalid peer certificate"),
        (&tls, TlsFiles { ca: Some(ca.file()), client: None }, "CertificateRequired"),
        (&tls, TlsFiles { ca: Some(ca.file()), client: Some(stranger.sign("shim").unwrap()) }, "alert"),
        (&elsewhere, TlsFiles { ca: Some(ca.file()), client }, "not valid for name"),
    ];
    for (server, files, problem) in cases {
        let shim = shim_at(&format!("rediss://{}", server.address), &files).await;
        let reason = not_ready(&shim).await;
        assert!(reason.starts_with("redis is unreachable: ") && reason.contains(problem), "{reason}");
        assert_eq!(asks_one(&shim).await, CheckAnswer::Failed { error: StoreError::Unreachable });
    }
}

#[tokio::test]
async fn refuses_files_that_are_no_use() {
    let ca = Ca::new().unwrap();
    let (cert, key) = ca.sign("shim").unwrap();
    let open = |url: &str, ca: Option<PathBuf>, client| {
        RedisStore::open_with(url, &Options { tls: TlsFiles { ca, client }, ..Options::within(PATIENT) })
            .err()
            .unwrap()
    };
    let tls = "rediss://127.0.0.1";
    let error = open("redis://127.0.0.1", Some(ca.file()), None);
    assert!(matches!(error, AddressError::NoTls), "{error}");
    let error = open(tls, Some("/nowhere/ca.pem".into()), None).to_string();
    assert!(error.starts_with("cannot read /nowhere/ca.pem: No such file"), "{error}");
    let error = open(tls, Some(ca.file()), Some((cert.clone(), cert)));
    assert!(matches!(error, AddressError::Certificates(_)), "{error}");
    let error = open(tls, Some(key), None);
    assert!(matches!(error, AddressError::NoCertificate(_)), "{error}");
}

#[tokio::test]
async fn needs_no_more_of_its_user_than_it_says() {
    let redis = Redis::start().unwrap();
    let rules: Vec<&str> = ACL_RULES.split(' ').collect();
    let user = [&["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~*"], &rules[..]].concat();
    run(&redis, &user);
    let shim =
        shim_at(&format!("{}?db=3&user=lanekeeper&pass=secret", redis.url()), &TlsFiles::default()).await;
    shim.until_ready().await;
    let wide = [sliding(2, HOUR), bucket(2, HOUR, 2), sliding(10, Duration::from_millis(2))];
    assert_eq!(left(&shim.ask(check(&[("k:{a}", 2, &wide)])).await), [[0, 0, 8]]);
    for _ in 0..3 {
        // What has passed is forgotten meanwhile, and each refusal looks through the buckets.
        tokio::time::sleep(Duration::from_millis(3)).await;
        rejected(&shim.ask(check(&[("k:{a}", 1, &wide)])).await);
        shim.ask(check(&[("k:{a}", 1, &wide[2..])])).await;
    }
    assert_eq!(run(&redis, &["EXISTS", "k:{a}"]), Value::Int(0), "it counts in its own database");
    run(&redis, &["CONFIG", "SET", "maxmemory", "1gb"]);
    let socket = redis.url().replace("redis+unix://", "");
    shim.metric(&format!("lanekeeper_shim_redis_memory_ratio{{node=\"{socket}\"}}")).await;
}

#[tokio::test]
async fn says_that_a_permission_is_missing() {
    let redis = Redis::start().unwrap();
    let commands = ["time", "hmget", "hget", "hset", "hdel", "pexpireat"];
    for command in commands {
        run(&redis, &["ACL", "SETUSER", command, "on", ">secret", "~*", "+@all", &format!("-{command}")]);
        let url = format!("{}?user={command}&pass=secret", redis.url());
        let shim = shim_at(&url, &TlsFiles::default()).await;
        assert_eq!(not_ready(&shim).await, format!("redis does not let its user run {command}: see --help"));
        assert_eq!(asks_one(&shim).await, CheckAnswer::Failed { error: StoreError::Refused });
        assert_eq!(run(&redis, &["DBSIZE"]), Value::Int(0), "nothing is charged in part without {command}");
    }
    let user = ["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~*", "+ping", "+evalsha", "+script|load"];
    run(&redis, &user);
    let shim = shim_at(&format!("{}?user=lanekeeper&pass=secret", redis.url()), &TlsFiles::default()).await;
    let reason = not_ready(&shim).await;
    assert!(reason.contains(&commands.join(", ")), "{reason}");
    run(&redis, &["ACL", "SETUSER", "lanekeeper", "-ping"]);
    let shim = shim_at(&format!("{}?user=lanekeeper&pass=secret", redis.url()), &TlsFiles::default()).await;
    let reason = not_ready(&shim).await;
    assert!(reason.starts_with("redis refused: ") && reason.contains("ping"), "{reason}");
}

#[tokio::test]
async fn counts_for_a_user_that_has_keys_of_its_own_only() {
    let redis = Redis::start().unwrap();
    run(&redis, &["ACL", "SETUSER", "lanekeeper", "on", ">secret", "~k:*", "+@all"]);
    let shim = shim_at(&format!("{}?user=lanekeeper&pass=secret", redis.url()), &TlsFiles::default()).await;
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
}

#[tokio::test]
async fn fails_at_once_with_a_wrong_password_and_works_when_it_is_right_again() {
    let redis = Redis::start().unwrap();
    let user = ["ACL", "SETUSER", "default", "resetpass"];
    run(&redis, &[&user[..], &[">other"]].concat());
    let shim = shim_at(&format!("{}?pass=secret", redis.url()), &TlsFiles::default()).await;
    assert_eq!(not_ready(&shim).await, "redis refused the user or the password");
    // The store's patience is longer than the test's: only an answer that does not wait for it comes in time.
    let answer = tokio::time::timeout(PATIENT / 2, asks_one(&shim)).await.expect("an answer at once");
    assert_eq!(answer, CheckAnswer::Failed { error: StoreError::Refused });
    let mut admin =
        redis::Client::open(format!("{}?pass=other", redis.url())).unwrap().get_connection().unwrap();
    redis::cmd("ACL").arg(&user[1..]).arg(">secret").exec(&mut admin).unwrap();
    shim.until_ready().await;
    assert_eq!(left(&asks_one(&shim).await), [[9]]);
}

#[tokio::test]
async fn says_that_a_password_is_missing() {
    let redis = Redis::start().unwrap();
    run(&redis, &["ACL", "SETUSER", "default", "resetpass", ">secret"]);
    let shim = shim_at(&redis.url(), &TlsFiles::default()).await;
    let reason = not_ready(&shim).await;
    assert!(reason.contains("NOAUTH"), "{reason}");
}
