//! One line, with a limit: the frame of the control protocol in both directions.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    #[error("the connection ended in the middle of a line")]
    CutOff,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The next line without its line feed, at most `max` bytes; `None` at the end of the stream.
pub(super) async fn read<R: AsyncBufRead + Unpin>(reader: &mut R, max: usize) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    (&mut *reader).take(limit).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(line));
    }
    Err(if line.len() > max { LineError::TooLong(max) } else { LineError::CutOff })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_has_a_limit_and_an_end() {
        let mut text: &[u8] = b"12345\n\nlast";
        assert_eq!(read(&mut text, 5).await.unwrap(), Some(b"12345".to_vec()));
        assert_eq!(read(&mut text, 5).await.unwrap(), Some(Vec::new()));
        assert!(matches!(read(&mut text, 5).await, Err(LineError::CutOff)));

        let mut long: &[u8] = b"123456\n";
        assert!(matches!(read(&mut long, 5).await, Err(LineError::TooLong(5))));
        let mut nothing: &[u8] = b"";
        assert_eq!(read(&mut nothing, 5).await.unwrap(), None);
    }
}
