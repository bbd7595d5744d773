//! A shim that leaves while others ask it: whoever takes over, no question is lost.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lanekeeper_engine::wire::DECIDE_PATH;
use lanekeeper_shim::app::App;
use lanekeeper_shim::listen::{Address, Manner, listen};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_tests::shim_process::ShimProcess;
use reqwest::{Client, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::support::{HOUR, PATIENT, Shim, batch, check, sliding};

const CLIENTS: usize = 8;
/// Between a client's answer and its next question: far less than a drain takes.
const PAUSE: Duration = Duration::from_millis(1);

fn body() -> Vec<u8> {
    serde_json::to_vec(&batch(0, vec![check(&[("k", 1, &[sliding(1_000_000, HOUR)])])])).unwrap()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is kept, as Envoy keeps its own.
struct Kept(Box<dyn Stream>);

impl Kept {
    async fn to(address: &Address) -> Self {
        match address {
            Address::Tcp(address) => Self(Box::new(TcpStream::connect(address).await.unwrap())),
            Address::Unix(path) => Self(Box::new(UnixStream::connect(path).await.unwrap())),
            Address::Systemd => unreachable!("a client knows where it asks"),
        }
    }

    /// Asks, and returns the head of the answer, which is the whole of it or the test fails.
    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> String {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: shim\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a connection that says when it ends"));
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut answer = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut answer).await.unwrap();
        head
    }
}

/// Clients that ask without a pause worth the name, each over a connection that it keeps until it is told not to.
struct Clients {
    done: Arc<AtomicBool>,
    asking: JoinSet<usize>,
}

impl Clients {
    /// Clients that send nothing twice: a connection that ends otherwise than by `connection: close` fails the test.
    fn over_http1(address: &Address) -> Self {
        let (done, mut asking) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for _ in 0..CLIENTS {
            let (done, address) = (Arc::clone(&done), address.clone());
            asking.spawn(async move {
                let (mut kept, mut answered) = (Kept::to(&address).await, 0);
                while !done.load(Ordering::Relaxed) {
                    let head = kept.ask("POST", DECIDE_PATH, &body()).await;
                    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
                    answered += 1;
                    if head.contains("\r\nconnection: close\r\n") {
                        kept = Kept::to(&address).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                answered
            });
        }
        Self { done, asking }
    }

    fn over_http2(address: &Address) -> Self {
        let (done, mut asking) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for _ in 0..CLIENTS {
            let (done, url) = (Arc::clone(&done), format!("{address}{DECIDE_PATH}"));
            let client = Client::builder().http2_prior_knowledge().build().unwrap();
            asking.spawn(async move {
                let mut answered = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = client.post(&url).body(body()).send().await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK);
                    answer.bytes().await.unwrap();
                    answered += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                answered
            });
        }
        Self { done, asking }
    }

    /// How many answers they had. Each question had one.
    async fn stop(self) -> usize {
        self.done.store(true, Ordering::Relaxed);
        timeout(PATIENT, self.asking.join_all()).await.expect("every question is answered").into_iter().sum()
    }
}

async fn on_a_thread_that_may_wait<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_that_take_over_from_each_other_lose_no_question() {
    let shim = ShimProcess::start("memory").unwrap();
    let clients = Clients::over_http1(&Address::Tcp(shim.address()));
    let _shim = on_a_thread_that_may_wait(move || replaced(shim, 20)).await;
    assert!(clients.stop().await > CLIENTS * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_nothing_is_lost_either() {
    let shim = ShimProcess::start("memory").unwrap();
    let clients = Clients::over_http2(&Address::Tcp(shim.address()));
    let _shim = on_a_thread_that_may_wait(move || replaced(shim, 3)).await;
    assert!(clients.stop().await > CLIENTS * 3);
}

fn replaced(mut shim: ShimProcess, times: usize) -> ShimProcess {
    (0..times).for_each(|_| shim.replace().unwrap());
    shim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_systemd_keeps_the_socket_questions_wait_and_are_not_lost() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shim = ShimProcess::start_on("memory", socket).unwrap();
    let clients = Clients::over_http1(&Address::Tcp(shim.address()));
    let restarts = move || {
        for _ in 0..20 {
            shim.stop().unwrap();
            shim.start_again().unwrap();
        }
        shim
    };
    let _shim = on_a_thread_that_may_wait(restarts).await;
    assert!(clients.stop().await > CLIENTS * 20);
}

/// A shim in this process.
struct Served {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// Starts one, and returns when it listens.
    async fn start(address: &Address, manner: Manner) -> std::io::Result<(Self, Address)> {
        let (stop, stopping) = oneshot::channel::<()>();
        let (ready, mut listening) = watch::channel(None);
        let address = address.clone();
        let mut ended = tokio::spawn(async move {
            let stopped = async {
                // Told, or dropped with the test.
                let _ = stopping.await;
            };
            let tell = |address: &Address| drop(ready.send_replace(Some(address.clone())));
            listen(address, App::new(MemoryStore::new()), manner, tell, stopped).await
        });
        tokio::select! {
            Ok(at) = listening.wait_for(Option::is_some) => Ok((Self { stop, ended }, at.clone().unwrap())),
            ended = &mut ended => Err(ended.unwrap().unwrap_err()),
        }
    }

    /// Tells it to stop, and waits until it has.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENT, self.ended).await.expect("it stops").unwrap().unwrap();
    }
}

fn taking_over() -> Manner {
    Manner { takes_over: true, ..Manner::default() }
}

fn unix(folder: &Path) -> Address {
    Address::Unix(folder.join("shim.sock"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_taken_over_and_stays_until_the_last_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let address = unix(folder.path());
    let (mut served, _) = Served::start(&address, taking_over()).await.unwrap();
    let clients = Clients::over_http1(&address);
    for _ in 0..20 {
        let (successor, _) = Served::start(&address, taking_over()).await.unwrap();
        std::mem::replace(&mut served, successor).stop().await;
    }
    assert!(clients.stop().await > CLIENTS * 20);
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files(), 1, "nothing but the socket is left");
    served.stop().await;
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn who_does_not_take_over_is_refused_an_address_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["127.0.0.1:0".parse().unwrap(), unix(folder.path())] {
        let (served, at) = Served::start(&address, Manner::default()).await.unwrap();
        let refused = Served::start(&at, Manner::default()).await.err().expect("an error");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse, "{at}");
        let (second, _) = Served::start(&at, taking_over()).await.unwrap();
        let refused = Served::start(&at, Manner::default()).await.err().expect("an error");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse, "{at}, beside two");
        served.stop().await;
        Kept::to(&at).await.ask("GET", "/healthz", b"").await;
        second.stop().await;
    }
}

#[tokio::test]
async fn who_leaves_says_so_keeps_idle_connections_and_ends_when_all_have_left() {
    let manner = Manner { drain: PATIENT * 2, ..Manner::default() };
    let shim = Shim::start_as(App::new(MemoryStore::new()), manner).await;
    let address: Address = shim.url["http://".len()..].parse().unwrap();
    let (mut one, mut other) = (Kept::to(&address).await, Kept::to(&address).await);
    for kept in [&mut one, &mut other] {
        let head = kept.ask("GET", "/readyz", b"").await;
        assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("connection:"), "{head}");
    }
    let stopped = shim.stop();
    let Address::Tcp(at) = address else { unreachable!("it is one") };
    while TcpStream::connect(at).await.is_ok() {
        tokio::time::sleep(PAUSE).await;
    }
    let head = one.ask("GET", "/readyz", b"").await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(one.0.read(&mut [0]).await.unwrap(), 0, "it is closed behind the answer");
    assert!(!stopped.is_finished());
    let head = other.ask("POST", DECIDE_PATH, &body()).await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("\r\nconnection: close\r\n"), "{head}");
    timeout(PATIENT, stopped).await.expect("all have left").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_once_the_drain_is_over() {
    let shim = Shim::start(App::new(MemoryStore::new())).await;
    let mut idle = Kept::to(&shim.url["http://".len()..].parse().unwrap()).await;
    idle.ask("GET", "/healthz", b"").await;
    let began = tokio::time::Instant::now();
    let stopped = shim.stop();
    assert_eq!(idle.0.read(&mut [0]).await.unwrap(), 0);
    assert!(began.elapsed() >= Manner::default().drain);
    stopped.await.unwrap().unwrap();
}
