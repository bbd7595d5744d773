//! Ports for servers that cannot say which one they were given.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};

/// An address that is free and stays so while its server is down: below the ports that the system gives to outgoing
/// connections and to whoever asks for any. No address is given twice in this process: between this and the moment at
/// which its server listens, nothing else shows that it is taken.
pub(crate) fn free_address() -> Result<SocketAddr> {
    const FIRST: u64 = 20_000;
    const COUNT: u64 = 10_000;
    /// Somewhere else in each process, since several may run tests at the same time.
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0) % COUNT));
    for _ in 0..100 {
        let port = u16::try_from(FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("found no free port from {FIRST} on")
}
