//! Ports for servers that cannot say which one they were given.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// An address that is free and stays so while its server is down: below the ports that the system gives to outgoing
/// connections and to whoever asks for any.
pub(crate) fn free_address() -> Result<SocketAddr> {
    const FIRST: u64 = 20_000;
    const COUNT: u64 = 10_000;
    let random = RandomState::new();
    for attempt in 0..100_u32 {
        let port = u16::try_from(FIRST + random.hash_one(attempt) % COUNT)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("found no free port from {FIRST} on")
}
