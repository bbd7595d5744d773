//! A master of a Redis Cluster is killed while everybody asks, and its replica takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lanekeeper_engine::wire::{Check, CheckAnswer, StoreError};
use lanekeeper_shim::redis::{Options, RedisStore};
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use tokio::task::JoinSet;

use crate::support::{HOUR, SECOND, check, log, sliding, until_ready};

/// Keys in the slots of the first, the second and the third node, the last of which is killed.
const KEYS: [&str; 3] = ["{b}", "{c}", "{a}"];
const KILLED: usize = 2;
/// How long the store may take: far longer than it does.
const TIMEOUT: Duration = SECOND;
const CALLERS: usize = 3;
const PAUSE: Duration = Duration::from_millis(2);

/// One question for one of the keys.
struct Asked {
    key: usize,
    at: Instant,
    answered: Instant,
    is_allowed: bool,
}

/// Callers of each key who ask again and again, until they are told to stop.
struct Callers {
    done: Arc<AtomicBool>,
    asking: JoinSet<Vec<Asked>>,
}

impl Callers {
    fn of(store: &Arc<RedisStore>) -> Self {
        let (done, mut asking) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for key in (0..KEYS.len()).cycle().take(CALLERS * KEYS.len()) {
            let (store, done) = (Arc::clone(store), Arc::clone(&done));
            asking.spawn(async move {
                let ask = [check(&[(KEYS[key], 1, &[sliding(1_000_000, HOUR)])])];
                let mut asked = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let at = Instant::now();
                    let answer = store.decide(&ask, Duration::ZERO).await.remove(0);
                    let is_allowed = matches!(answer, CheckAnswer::Allowed { .. });
                    asked.push(Asked { key, at, answered: Instant::now(), is_allowed });
                    tokio::time::sleep(PAUSE).await;
                }
                asked
            });
        }
        Self { done, asking }
    }

    async fn stop(self) -> Vec<Asked> {
        self.done.store(true, Ordering::Relaxed);
        self.asking.join_all().await.into_iter().flatten().collect()
    }
}

async fn until_promoted(cluster: &Cluster) {
    while !cluster.replicas[KILLED].is_master().unwrap() {
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_fails_its_own_keys_alone_until_its_replica_takes_over() {
    fails_over("killed", Redis::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_a_few_questions_of_its_own_keys_until_its_replica_takes_over() {
    fails_over("hung", |master| master.freeze().unwrap()).await;
}

/// Takes one of three masters away while callers ask for keys of all, and holds all answers to what is promised.
async fn fails_over(what: &str, take_away: fn(&mut Redis)) {
    let mut cluster = Cluster::start_replicated().unwrap();
    let store = Arc::new(RedisStore::open(&cluster.url(), TIMEOUT).unwrap());
    until_ready(store.as_ref()).await;
    let callers = Callers::of(&store);
    tokio::time::sleep(TIMEOUT).await;
    let killed = Instant::now();
    take_away(&mut cluster.nodes[KILLED].redis);
    until_promoted(&cluster).await;
    let promoted = Instant::now();
    while !is_allowed(&store).await {
        tokio::time::sleep(PAUSE).await;
    }
    let back = promoted.elapsed();
    tokio::time::sleep(TIMEOUT).await;
    let asked = callers.stop().await;

    let longest = asked.iter().map(|asked| asked.answered - asked.at).max().unwrap();
    let failed = asked.iter().filter(|asked| !asked.is_allowed).count();
    println!(
        "{what}: promoted after {:?}, back {back:?} after that; {failed} of {} questions failed, the longest took {longest:?}",
        promoted - killed,
        asked.len(),
    );
    assert!(back < 2 * SECOND, "{what}: {back:?}");
    assert!(longest < TIMEOUT + TIMEOUT / 2, "{what}: {longest:?}");
    for asked in asked {
        if asked.key != KILLED {
            assert!(asked.is_allowed, "{what}: {}, after {:?}", KEYS[asked.key], asked.answered - killed);
        } else if asked.at > promoted + back || asked.answered < killed {
            assert!(asked.is_allowed, "{what}: {:?} after the promotion", asked.at - promoted);
        }
    }
}

async fn is_allowed(store: &RedisStore) -> bool {
    let ask = [check(&[(KEYS[KILLED], 1, &[sliding(1_000_000, HOUR)])])];
    matches!(store.decide(&ask, Duration::ZERO).await[0], CheckAnswer::Allowed { .. })
}

const LIMIT: u32 = 40;
/// What the replica does not hear of.
const LOST: u32 = 3;
/// By how much a limit is exceeded over a failover that loses the last charges, in any trailing window, and how many of
/// the last questions were answered.
async fn exceeded_by(window: Duration, options: Options) -> (u32, u32) {
    let mut cluster = Cluster::start_replicated().unwrap();
    let mut store = RedisStore::open_with(&cluster.url(), &options).unwrap();
    until_ready(&store).await;
    // A log, which is exact.
    let ask = [check(&[(KEYS[KILLED], 1, &[log(LIMIT, window)])])];
    let mut admitted = Vec::new();
    for _ in 0..LIMIT / 2 {
        admitted.extend(admitted_at(&store, &ask).await.expect("the limit is not reached"));
    }
    cluster.settle(KILLED).unwrap();
    // From here on it hears of nothing.
    cluster.replicas[KILLED].redis.freeze().unwrap();
    cluster.nodes[KILLED].run::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    let mut answered = 0;
    for at in [(); LOST as usize].map(|()| admitted_at(&store, &ask)) {
        if let Ok(at) = at.await {
            answered += 1;
            admitted.extend(at);
        }
    }
    cluster.nodes[KILLED].redis.kill();
    cluster.replicas[KILLED].redis.thaw().unwrap();
    until_promoted(&cluster).await;
    if options.wait_replicas > 0 {
        // The new master has no replica to wait for.
        store = RedisStore::open(&cluster.url(), TIMEOUT).unwrap();
    }
    // All that it gives away.
    loop {
        match admitted_at(&store, &ask).await {
            Ok(Some(at)) => admitted.push(at),
            Ok(None) => break,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    let window = u64::try_from(window.as_micros()).unwrap();
    let within = |end: &u64| admitted.iter().filter(|at| (end - window + 1..=*end).contains(*at)).count();
    let most = u32::try_from(admitted.iter().map(within).max().unwrap()).unwrap();
    (most - LIMIT, answered)
}

/// When by the store's clock one more was admitted, if it was; an error where nothing was decided.
async fn admitted_at(store: &RedisStore, ask: &[Check]) -> Result<Option<u64>, StoreError> {
    match store.decide(ask, Duration::ZERO).await.remove(0) {
        CheckAnswer::Allowed { keys } => Ok(Some(keys[0].at_us)),
        CheckAnswer::Rejected { .. } => Ok(None),
        CheckAnswer::Failed { error } => Err(error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_alone_sells_again_what_was_lost() {
    assert_eq!(exceeded_by(HOUR, Options::within(TIMEOUT)).await, (LOST, LOST));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_were_waited_for_is_not_sold_again() {
    let options = Options { wait_replicas: 1, ..Options::within(TIMEOUT) };
    assert_eq!(exceeded_by(HOUR, options).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_learns_sells_nothing_again_in_windows_that_are_no_longer_than_that() {
    let options = || Options { learning_period: 3 * SECOND, ..Options::within(TIMEOUT) };
    assert_eq!(exceeded_by(3 * SECOND, options()).await, (0, LOST));
    assert_eq!(exceeded_by(HOUR, options()).await, (LOST, LOST), "in a longer one it does");
}
