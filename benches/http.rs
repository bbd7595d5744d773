//! Where an answer ends, for loads that share a core with what they measure and so read nothing else of it.

use anyhow::{Context, Result};

/// How long the whole answer is, once its head is there.
pub(crate) fn length(answer: &[u8]) -> Result<Option<usize>> {
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
    fn an_answer_is_as_long_as_its_head_says_once_that_is_there() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nserver: envoy\r\n\r\n";
        assert_eq!(length(&head[..head.len() - 1]).unwrap(), None);
        assert_eq!(length(head).unwrap(), Some(head.len() + 12));
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
