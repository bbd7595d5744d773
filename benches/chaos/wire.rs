//! A network that can be broken: a proxy between two processes of this machine, for what no kernel is asked to do.
//!
//! What a network loses, TCP sends again, so nothing is ever dropped from a stream: it comes late. A lost segment holds
//! up all behind it until it has been sent again, and a cut link everything until it is whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// All passes at once.
    Fine,
    /// All takes so long, each way.
    Slow(Duration),
    /// One segment in ten is lost.
    Lossy,
    /// Nothing passes.
    Cut,
    /// No questions pass; answers do.
    CutThere,
    /// No answers pass; questions do.
    CutBack,
    /// Bodies of answers arrive as nonsense of the same length.
    Garbled,
}

/// The share of segments that [`Weather::Lossy`] loses.
const LOST: f64 = 0.1;
/// After so long TCP sends a lost segment again: Linux's shortest.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Where a wire leads.
#[derive(Clone, Debug)]
pub(super) enum Server {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A running proxy; gone when dropped.
pub(super) struct Wire {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    // dropped without waiting: copies under way end only with their connections
    runtime: Option<Runtime>,
}

impl Wire {
    /// Lays one to `server`.
    pub(super) fn to(server: Server) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let (address, weather) = (listener.local_addr()?, watch::Sender::new(Weather::Fine));
        let listens = weather.clone();
        runtime.spawn(async move {
            for seed in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                // a server that cannot be reached closes the connection, as a refusal would
                tokio::spawn(connect(client, server.clone(), listens.clone(), seed));
            }
        });
        Ok(Self { address, weather, runtime: Some(runtime) })
    }

    /// Where it begins.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// It is so from now on, also for connections that are open.
    pub(super) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connect(
    client: TcpStream,
    server: Server,
    weather: watch::Sender<Weather>,
    seed: u64,
) -> Result<()> {
    client.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let there = Way { weather: weather.subscribe(), cut: [Weather::Cut, Weather::CutThere], is_back: false };
    let back = Way { weather: weather.subscribe(), cut: [Weather::Cut, Weather::CutBack], is_back: true };
    match server {
        Server::Tcp(address) => {
            let server = TcpStream::connect(address).await?;
            server.set_nodelay(true)?;
            let (from_server, to_server) = server.into_split();
            both(
                there.carry(from_client, to_server, 2 * seed),
                back.carry(from_server, to_client, 2 * seed + 1),
            )
            .await
        }
        Server::Unix(path) => {
            let (from_server, to_server) = UnixStream::connect(path).await?.into_split();
            both(
                there.carry(from_client, to_server, 2 * seed),
                back.carry(from_server, to_client, 2 * seed + 1),
            )
            .await
        }
    }
}

/// Both ways of a connection, which ends with the first that does: nobody here half-closes one.
async fn both(there: impl Future<Output = Result<()>>, back: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// One of the two ways of a connection.
struct Way {
    weather: watch::Receiver<Weather>,
    /// Under which nothing passes this way.
    cut: [Weather; 2],
    is_back: bool,
}

impl Way {
    async fn carry(
        self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        seed: u64,
    ) -> Result<()> {
        let (send, mut sent) = mpsc::unbounded_channel();
        let (now, mut chance) = (self.weather.clone(), Pcg64Mcg::seed_from_u64(seed));
        let read = async move {
            loop {
                let mut segment = Vec::with_capacity(1 << 16);
                if from.read_buf(&mut segment).await? == 0 {
                    // what is under way arrives before the end does
                    drop(send);
                    return anyhow::Ok(());
                }
                let weather = *now.borrow();
                let late = match weather {
                    Weather::Slow(by) => by,
                    Weather::Lossy if chance.random_bool(LOST) => SENT_AGAIN_AFTER,
                    _ => Duration::ZERO,
                };
                if weather == Weather::Garbled && self.is_back {
                    garble(&mut segment);
                }
                send.send((Instant::now() + late, late, segment)).context("nobody sends it on")?;
            }
        };
        let (mut weather, cut) = (self.weather, self.cut);
        let write = async move {
            while let Some((due, late, segment)) = sent.recv().await {
                if !late.is_zero() {
                    sleep_until(due).await;
                }
                weather.wait_for(|weather| !cut.contains(weather)).await?;
                to.write_all(&segment).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(read, write).map(drop)
    }
}

/// Makes nonsense of what stands behind the head of an HTTP answer, and leaves the head.
fn garble(segment: &mut [u8]) {
    const END: &[u8] = b"\r\n\r\n";
    let head = segment.windows(END.len()).position(|bytes| bytes == END);
    let body = head.map_or(0, |head| head + END.len());
    segment.iter_mut().skip(body).for_each(|byte| *byte = b'~');
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A wire, and a connection through it from end to end.
    fn laid() -> (Wire, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::to(Server::Tcp(listener.local_addr().unwrap())).unwrap();
        let client = TcpStream::connect(wire.address()).unwrap();
        (wire, client, listener.accept().unwrap().0)
    }

    fn read(from: &mut TcpStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn is_silent(from: &mut TcpStream) -> bool {
        from.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let nothing = from.read(&mut [0]).is_err();
        from.set_read_timeout(None).unwrap();
        nothing
    }

    #[test]
    fn a_fine_wire_carries_both_ways_and_closes_with_either_end() {
        let (_wire, mut client, mut server) = laid();
        client.write_all(b"question").unwrap();
        assert_eq!(read(&mut server, 8), "question");
        server.write_all(b"answer").unwrap();
        assert_eq!(read(&mut client, 6), "answer");
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_a_cut_wire_holds_arrives_when_it_is_whole() {
        let (wire, mut client, mut server) = laid();
        wire.set(Weather::CutThere);
        client.write_all(b"question").unwrap();
        server.write_all(b"answer").unwrap();
        assert_eq!(read(&mut client, 6), "answer");
        assert!(is_silent(&mut server));
        wire.set(Weather::CutBack);
        assert_eq!(read(&mut server, 8), "question");
        server.write_all(b"another").unwrap();
        assert!(is_silent(&mut client));
        wire.set(Weather::Fine);
        assert_eq!(read(&mut client, 7), "another");
    }

    #[test]
    fn a_slow_wire_takes_its_time_each_way() {
        let (wire, mut client, mut server) = laid();
        wire.set(Weather::Slow(Duration::from_millis(20)));
        let began = Instant::now();
        client.write_all(b"question").unwrap();
        read(&mut server, 8);
        server.write_all(b"answer").unwrap();
        read(&mut client, 6);
        assert!(began.elapsed() >= Duration::from_millis(40));
    }

    #[test]
    fn bodies_are_garbled_and_heads_are_not() {
        let (wire, mut client, mut server) = laid();
        wire.set(Weather::Garbled);
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"a\": 1}").unwrap();
        assert_eq!(read(&mut client, 27), "HTTP/1.1 200 OK\r\n\r\n~~~~~~~~");
    }
}
