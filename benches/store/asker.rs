//! One kept connection to the shim.
//!
//! Not a whole HTTP client: it shares a core with what it measures, so an answer is found by its length and looked
//! through for failures, and nothing else is read of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::question::Question;
use crate::http::length;

/// Far above what an answer takes: one that does not come ends the bench.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Asker {
    connection: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Asker {
    pub(super) fn connect(shim: SocketAddr) -> Result<Self> {
        let connection = TcpStream::connect(shim).context("the shim lets nobody in")?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { connection, request: Vec::new(), answer: Vec::new() })
    }

    /// Asks for one request of each of these subjects, and waits for the answers. An error when a check failed or
    /// was rejected: what is measured is a store that decides, far below its limits.
    pub(super) fn ask(&mut self, question: &Question, subjects: &[u64]) -> Result<()> {
        question.write(subjects, &mut self.request);
        self.connection.write_all(&self.request)?;
        self.receive()?;
        let allowed = self.answer.windows(ALLOWED.len()).filter(|bytes| *bytes == ALLOWED).count();
        if allowed != subjects.len() {
            bail!("{allowed} of {} are allowed: {}", subjects.len(), String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        self.answer.clear();
        let mut chunk = [0; 1 << 16];
        loop {
            let read = self.connection.read(&mut chunk)?;
            ensure!(read > 0, "the shim hung up");
            self.answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
            if length(&self.answer)?.is_some_and(|length| self.answer.len() >= length) {
                return Ok(());
            }
        }
    }
}

const ALLOWED: &[u8] = br#""outcome":"allowed""#;
