//! One kept connection to the shim.
//!
//! Not a whole HTTP client: it shares a core with what it measures, so an answer is found by its length and looked
//! through for failures, and nothing else is read of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::question::Question;

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
            if whole(&self.answer)?.is_some_and(|length| self.answer.len() >= length) {
                return Ok(());
            }
        }
    }
}

const ALLOWED: &[u8] = br#""outcome":"allowed""#;

/// How long the whole answer is, once its head is there.
fn whole(answer: &[u8]) -> Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = answer.windows(END.len()).position(|bytes| bytes == END) else { return Ok(None) };
    let text = std::str::from_utf8(answer.get(..head).unwrap_or_default())?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.with_context(|| format!("an answer of unknown length: {text}"))?.parse()?;
    Ok(Some(head + END.len() + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y";
        assert_eq!(whole(head.as_bytes()).unwrap(), None);
        assert_eq!(whole(format!("{head}\r\n\r\nhal").as_bytes()).unwrap(), Some(head.len() + 4 + 5));
        assert!(whole(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n").is_err());
    }
}
