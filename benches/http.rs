//! As much of HTTP/1.1 as a load needs that shares a core with what it measures: where an answer ends, and what few
//! things of its head are looked at.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the whole answer is, once its head is there.
pub(crate) fn length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = Head::of(answer)? else { return Ok(None) };
    let length = head.header("content-length");
    let length: usize =
        length.with_context(|| format!("an answer of unknown length: {}", head.text))?.parse()?;
    Ok(Some(head.text.len() + Head::END.len() + length))
}

/// The lines before an answer's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    text: &'a str,
}

impl<'a> Head<'a> {
    const END: &'static [u8] = b"\r\n\r\n";

    /// None while it is not whole.
    pub(crate) fn of(answer: &'a [u8]) -> Result<Option<Self>> {
        let end = answer.windows(Self::END.len()).position(|bytes| bytes == Self::END);
        let Some(head) = end.and_then(|end| answer.get(..end)) else { return Ok(None) };
        Ok(Some(Self { text: std::str::from_utf8(head)? }))
    }

    /// The status code.
    pub(crate) fn status(&self) -> Result<u16> {
        let code = self.text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).with_context(|| format!("no HTTP/1.1: {}", self.text))
    }

    /// The first value under a name in lower case, as Envoy and the shim write it.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
        self.text.lines().find_map(value)
    }
}

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("{address} lets nobody in"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Sends a request, waits for the whole answer, and gives that.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        while length(&self.answer)?.is_none_or(|length| self.answer.len() < length) {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server hung up");
        }
        Ok(&self.answer)
    }

    /// Whether the other side has left or says something unasked, so that no request is to be sent here any more.
    pub(crate) fn is_over(&self) -> bool {
        let nothing = self.stream.try_read(&mut [0]);
        !matches!(nothing, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says_once_that_is_there() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nserver: envoy\r\n\r\n";
        assert_eq!(length(&head[..head.len() - 1]).unwrap(), None);
        assert_eq!(length(head).unwrap(), Some(head.len() + 12));
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_head_tells_its_status_and_its_headers() {
        let head =
            Head::of(b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\n\r\nbody").unwrap().unwrap();
        assert_eq!(head.status().unwrap(), 429);
        assert_eq!((head.header("connection"), head.header("close")), (Some("close"), None));
        assert!(Head::of(b"nonsense\r\n\r\n").unwrap().unwrap().status().is_err());
    }
}
