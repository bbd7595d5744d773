use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::*;

/// A server that treats every connection so.
struct Server {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    fn start<F: Future<Output = Result<()>> + Send + 'static>(serve: fn(TcpStream) -> F) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection));
            }
        });
        Self { address, _runtime: runtime }
    }

    /// A short load on it: what became of each of the requests, which are counted from 0.
    fn asked(&self, lasts: Duration, patience: Duration) -> Vec<Asked<u64>> {
        let (envoys, per_sec) = (vec![self.address], Box::new(|_| 400.0));
        let plan = Plan { envoys, connections: 4, per_sec, lasts, patience, seed: 1 };
        let mut sent = 0;
        let request = move |_, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(format!("GET /{sent} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
            sent += 1;
            sent - 1
        };
        let mut asked = Driver::start(plan, request, Vec::new()).unwrap().finish().unwrap();
        asked.sort_by_key(|asked| asked.who);
        assert!(asked.iter().map(|asked| asked.who).eq(0..asked.len() as u64), "each is in the account once");
        asked
    }
}

async fn path(connection: &mut TcpStream) -> Result<u64> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(connection.read_buf(&mut request).await? > 0);
    }
    let text = String::from_utf8(request)?;
    Ok(text.split(['/', ' ']).nth(2).unwrap_or_default().parse()?)
}

async fn answers_by_number(mut connection: TcpStream) -> Result<()> {
    loop {
        let head: &[u8] = match path(&mut connection).await? % 4 {
            0 => b"HTTP/1.1 200 OK\r\nx-lanekeeper-fallback: local\r\ncontent-length: 2\r\n\r\nok",
            1 => b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
            // the connection breaks under it
            2 => return Ok(()),
            _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        };
        connection.write_all(head).await?;
    }
}

#[test]
fn every_request_is_in_the_account_with_what_became_of_it() {
    let asked = Server::start(answers_by_number).asked(Duration::from_millis(300), PATIENCE);
    assert!(asked.len() > 50, "{}", asked.len());
    let answered = |status, fallback| End::Answered { status, fallback };
    let ends = [answered(200, Some(OnFailure::Local)), answered(429, None), End::Lost, answered(200, None)];
    for asked in asked {
        assert_eq!(asked.end, ends[asked.who as usize % 4], "{asked:?}");
        assert!(asked.over >= asked.came);
    }
}

async fn answers_once(mut connection: TcpStream) -> Result<()> {
    path(&mut connection).await?;
    // leaves without a word of it in the answer
    Ok(connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?)
}

#[test]
fn a_connection_that_was_closed_between_two_requests_is_opened_anew() {
    let server = Server::start(answers_once);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut kept = None;
        for _ in 0..3 {
            let end = ask(&mut kept, server.address, b"GET /0 HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(end, End::Answered { status: 200, fallback: None });
            while !kept.as_ref().unwrap().is_over() {
                tokio::task::yield_now().await;
            }
        }
    });
}

async fn never_answers(mut connection: TcpStream) -> Result<()> {
    loop {
        path(&mut connection).await?;
    }
}

#[test]
fn whoever_waits_too_long_hangs_also_while_waiting_for_a_connection() {
    let patience = Duration::from_millis(200);
    let asked = Server::start(never_answers).asked(Duration::from_millis(50), patience);
    assert!(asked.len() > 4, "more than there are connections: {}", asked.len());
    for asked in asked {
        assert_eq!(asked.end, End::Hung);
        assert!(asked.took() >= patience, "{asked:?}");
    }
}
