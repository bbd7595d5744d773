//! Answers of Redis that are no answers: of another shape, out of range, without an end, cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_engine::lease::{Lease, LeaseAsk};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, StoreError};
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::hash::Counted;
use crate::support::{HOUR, PATIENT, allowed, check, left, sliding, until_ready};

fn failed(error: StoreError) -> CheckAnswer {
    CheckAnswer::Failed { error }
}

/// Asks the server at `url` once.
async fn ask(store: &RedisStore, check: Check) -> CheckAnswer {
    until_ready(store).await;
    store.decide(&[check], Duration::ZERO).await.remove(0)
}

/// What the script says of one that is taken of a window of ten, with a lease: its clock, that it is allowed, the latest
/// moment seen, how much is granted, the lease's tokens and life, what is left, until when, and until the cost fits.
const ANSWER: [&str; 9] = [":1", ":1", ":1", ":1", ":3", ":500", ":6", ":5", ":0"];
/// What is asked for in advance.
const LEASE: LeaseAsk = LeaseAsk { tokens: 4, life_ms: 1000, drift: 10_000, nodes: 1 };

fn array(words: &[&str]) -> String {
    format!("*{}\r\n{}\r\n", words.len(), words.join("\r\n"))
}

/// What a shim makes of `answer`.
async fn told(answer: &str, timeout: Duration) -> CheckAnswer {
    let store = RedisStore::open(&impostor(answer).await, timeout).unwrap();
    let key = KeyCheck { lease: Some(LEASE), ..KeyCheck::take("k", 1, [sliding(10, HOUR)]) };
    ask(&store, Check { keys: vec![key] }).await
}

#[tokio::test]
async fn an_answer_with_one_number_out_of_range_is_a_failure_and_no_more() {
    let answer = told(&array(&ANSWER), PATIENT).await;
    assert_eq!(left(&answer), [[6]], "without that it is an answer");
    let CheckAnswer::Allowed { keys } = answer else { panic!("not allowed") };
    assert_eq!(keys[0].lease, Some(Lease { tokens: 3, life_ms: 500 }));
    let never_numbers =
        ["+1", "$1\r\n1", "$-1", "*0", "*1\r\n:1", ",0.5", "(1", "#t", "_", "-ERR x", "%1\r\n:1\r\n:1"];
    let out_of_range: [&[&str]; 9] = [
        &[":-1"],
        &[":2", ":-1", ":-2", ":9223372036854775807"],
        &[":-1"],
        // more than was asked for, or less than was to be had at least
        &[":-1", ":0", ":2", ":4294967297"],
        // none, for a time; more than was asked for, or for longer
        &[":-1", ":0", ":5", ":4294967297"],
        &[":-1", ":1001", ":4294967297"],
        // more than the window holds
        &[":-1", ":11", ":4294967295", ":4294967296"],
        &[":-1"],
        &[":-1"],
    ];
    for (at, wrong) in out_of_range.into_iter().enumerate() {
        for wrong in wrong.iter().chain(&never_numbers) {
            let mut words = ANSWER;
            words[at] = wrong;
            assert_eq!(told(&array(&words), PATIENT).await, failed(StoreError::Malformed), "{words:?}");
        }
        let mut words = ANSWER;
        // No number of the protocol.
        words[at] = ":9223372036854775808";
        assert_eq!(told(&array(&words), PATIENT).await, failed(StoreError::Disconnected), "{words:?}");
    }
    let granted_although_rejected = [":1", ":0", ":1", ":1", ":0", ":0", ":6", ":5", ":0"];
    let leased_although_rejected = [":1", ":0", ":1", ":0", ":3", ":500", ":6", ":5", ":0"];
    for words in [granted_although_rejected, leased_although_rejected] {
        assert_eq!(told(&array(&words), PATIENT).await, failed(StoreError::Malformed), "{words:?}");
    }
}

#[tokio::test]
async fn an_answer_of_another_shape_is_a_failure_and_no_more() {
    let cases = [
        ("+OK\r\n", StoreError::Malformed),
        (":7\r\n", StoreError::Malformed),
        ("$-1\r\n", StoreError::Malformed),
        ("*0\r\n", StoreError::Malformed),
        ("*-1\r\n", StoreError::Malformed),
        (&format!("*1\r\n{}", array(&ANSWER)), StoreError::Malformed),
        ("~1\r\n:1\r\n", StoreError::Malformed),
        (&array(&ANSWER[..8]), StoreError::Malformed),
        (&array(&[&ANSWER[..], &[":0"]].concat()), StoreError::Malformed),
        (&array(&[&ANSWER[..], &ANSWER[6..]].concat()), StoreError::Malformed),
        ("-LOADING Redis is loading the dataset in memory\r\n", StoreError::Refused),
        ("-NOSCRIPT No matching script\r\n", StoreError::Refused),
        ("-\r\n", StoreError::Refused),
        ("?\0\r\n", StoreError::Disconnected),
        (&"*1\r\n".repeat(1000), StoreError::Disconnected),
    ];
    for (answer, error) in cases {
        assert_eq!(told(answer, PATIENT).await, failed(error), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_announces_more_than_it_brings_is_waited_for_and_no_longer() {
    let cases =
        ["$536870912\r\nx", "*1000000000\r\n:1\r\n", "*7\r\n:1\r\n:1\r\n", "*9223372036854775807\r\n"];
    for answer in cases {
        let answered = told(answer, Duration::from_millis(100)).await;
        assert_eq!(answered, failed(StoreError::Timeout), "{answer:?}");
    }
}

/// Where a connection ends.
#[derive(Clone, Copy)]
enum Cut {
    /// So many bytes into the first script's command.
    Question(usize),
    /// So many bytes into what is answered to the first script.
    Answer(usize),
    Never,
}

/// What went through a wire.
#[derive(Default)]
struct Seen {
    scripts: AtomicUsize,
    /// The length of the last script's command.
    question: AtomicUsize,
}

/// A wire to a Redis, cut once and then whole again; its address, and what it has seen.
async fn wire(redis: &Redis, cut: Cut) -> (String, Arc<Seen>) {
    let socket = redis.url().replace("redis+unix://", "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Seen::default());
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(carry(client, server, cut, Arc::clone(&told)));
        }
    });
    (url, seen)
}

/// Carries bytes both ways until one side ends or the wire is cut.
async fn carry(mut client: TcpStream, server: UnixStream, cut: Cut, seen: Arc<Seen>) {
    let (mut from_server, mut to_server): (OwnedReadHalf, OwnedWriteHalf) = server.into_split();
    let (mut question, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut is_first, mut passed) = (false, 0);
    loop {
        tokio::select! {
            Ok(size @ 1..) = client.read(&mut question) => {
                let bytes = &question[..size];
                if let Some(at) = start_of_script(bytes) {
                    is_first = seen.scripts.fetch_add(1, Ordering::SeqCst) == 0;
                    seen.question.store(size - at, Ordering::SeqCst);
                    passed = 0;
                    if let (Cut::Question(most), true) = (cut, is_first) {
                        to_server.write_all(&bytes[..at + most]).await.unwrap();
                        return;
                    }
                }
                to_server.write_all(bytes).await.unwrap();
            }
            Ok(size @ 1..) = from_server.read(&mut answer) => {
                let mut bytes = &answer[..size];
                passed += size;
                let is_cut = match cut {
                    Cut::Answer(most) if is_first && passed >= most => {
                        bytes = &bytes[..size - (passed - most)];
                        true
                    }
                    _ => false,
                };
                client.write_all(bytes).await.unwrap();
                if is_cut {
                    return;
                }
            }
            else => return,
        }
    }
}

/// Where the command begins that runs a script.
fn start_of_script(bytes: &[u8]) -> Option<usize> {
    let name = bytes.windows(7).position(|word| word == b"EVALSHA")?;
    bytes[..name].iter().rposition(|byte| *byte == b'*')
}

/// Asks through a wire, cut or not, for one of a thousand; what is answered, how often the key was charged and the
/// script sent, once the wire was whole again.
async fn ask_through(redis: &Redis, cut: Cut, key: &str) -> (CheckAnswer, u64, Arc<Seen>) {
    let (url, seen) = wire(redis, cut).await;
    let store = RedisStore::open(&url, PATIENT).unwrap();
    let answer = ask(&store, check(&[(key, 1, &[sliding(1000, HOUR)])])).await;
    until_ready(&store).await;
    let mut connection = redis.connect().unwrap();
    let hash = redis::cmd("HGETALL").arg(key).query(&mut connection).unwrap();
    (answer, Counted::read(&hash, "s1h").total, seen)
}

#[tokio::test]
async fn a_connection_cut_anywhere_is_a_failure_charged_once_at_most_and_never_sent_again() {
    let redis = Arc::new(Redis::start().unwrap());
    // The first run has to bring the script, the second does not.
    ask_through(&redis, Cut::Never, "k000").await;
    let (answer, charged, seen) = ask_through(&redis, Cut::Never, "k001").await;
    assert_eq!((left(&answer), charged), (vec![vec![999]], 1));
    let question = seen.question.load(Ordering::SeqCst);
    let window = allowed(&answer)[0][0];
    let numbers = [1_700_000_000_000_000, 1, window.remaining.into(), window.reset_us, window.wait_us];
    let answer =
        "*5\r\n".len() + numbers.map(|number: u64| format!(":{number}\r\n").len()).iter().sum::<usize>();
    assert!(question > 100 && answer > 30, "{question} and {answer} bytes");

    let questions = (0..question).map(|at| (Cut::Question(at), 0));
    let answers = (0..answer).map(|at| (Cut::Answer(at), 1));
    let mut asked = JoinSet::new();
    for (at, (cut, charges)) in questions.chain(answers).enumerate() {
        let redis = Arc::clone(&redis);
        asked.spawn(async move {
            let (answer, charged, seen) = ask_through(&redis, cut, &format!("k{:03}", at + 2)).await;
            assert_eq!(answer, failed(StoreError::Disconnected), "{at}");
            assert_eq!((charged, seen.scripts.load(Ordering::SeqCst)), (charges, 1), "{at}");
        });
    }
    asked.join_all().await;
}

/// A server that answers `answer` to every script, and `OK` to everything else.
async fn impostor(answer: &str) -> String {
    let answer: Arc<str> = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let (read, mut write) = connection.into_split();
                let mut read = BufReader::new(read);
                while let Ok(name) = read_command(&mut read).await {
                    let answer = if name == b"EVALSHA" { &*answer } else { "+OK\r\n" };
                    if write.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Reads a command, `*<words>` and then `$<bytes>` and the bytes of each word; returns the first word.
async fn read_command(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut words = Vec::new();
    for _ in 0..read_number(read).await? {
        let mut word = vec![0; read_number(read).await? + 2];
        read.read_exact(&mut word).await?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Ok(words.remove(0))
}

async fn read_number(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<usize> {
    let mut line = String::new();
    if read.read_line(&mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line[1..].trim_end().parse().unwrap())
}
