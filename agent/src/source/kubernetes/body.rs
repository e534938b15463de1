//! The body of an answer: whole, or line by line.

use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::time::timeout;

use super::fault::Fault;

/// How long a server may be silent in the middle of an answer.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// The longest line, and the largest page, that is read, in bytes. An object has at most 1.5 MiB in etcd; a page has
/// at most 500 objects, but a server may ignore that and send all of them.
const LONGEST_LINE: usize = 32 << 20;
const LARGEST_PAGE: usize = 512 << 20;

/// Above this, a buffer that is not needed is given back.
const KEEP: usize = 64 << 10;

/// All of a body.
///
/// # Errors
/// It breaks off, stops, or is too large.
pub(super) async fn read_all(mut body: Body) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    while read_more(&mut body, &mut all, SILENCE).await? {
        if all.len() > LARGEST_PAGE {
            return Err(Fault::Protocol(format!("more than {LARGEST_PAGE} bytes in one answer")));
        }
    }
    Ok(all)
}

/// Appends the next bytes; whether there were any.
async fn read_more(body: &mut Body, into: &mut Vec<u8>, patience: Duration) -> Result<bool, Fault> {
    loop {
        let frame = timeout(patience, body.frame())
            .await
            .map_err(|_| Fault::Unreachable(format!("nothing came for {} s", patience.as_secs())))?;
        match frame {
            None => return Ok(false),
            Some(Err(error)) => return Err(Fault::of_client(&error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    into.extend_from_slice(&data);
                    return Ok(true);
                }
            }
        }
    }
}

/// The lines of a body.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer, and up to where it has no end.
    start: usize,
    searched: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// The next line, without its end; `None` where the body ends. What stands behind the last line's end is no
    /// line: the server was cut off in the middle of it. Safe to cancel.
    ///
    /// # Errors
    /// The body breaks off, or nothing came for as long as `patience`.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<&[u8]>, Fault> {
        let end = loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                break self.searched + at;
            }
            self.discard_read();
            if self.buffer.len() > LONGEST_LINE {
                return Err(Fault::Protocol(format!("a line of more than {LONGEST_LINE} bytes")));
            }
            self.searched = self.buffer.len();
            if !read_more(&mut self.body, &mut self.buffer, patience).await? {
                return Ok(None);
            }
        };
        let line = self.start..end;
        self.start = end + 1;
        self.searched = end + 1;
        Ok(Some(&self.buffer[line]))
    }

    fn discard_read(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() < KEEP && self.buffer.capacity() > KEEP {
            self.buffer.shrink_to(KEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_however_they_are_cut() {
        let text = b"first\n\nthird line\nhalf".to_vec();
        let mut lines = Lines::new(Body::from(text));
        let mut read = Vec::new();
        while let Some(line) = lines.next(SILENCE).await.unwrap() {
            read.push(String::from_utf8(line.to_vec()).unwrap());
        }
        assert_eq!(read, ["first", "", "third line"]);
    }
}
