//! What a server can be told to do wrong, and the body through which all answers go, where most of it is done.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};

/// What is wrong with a server. The default is nothing; each stays until it is taken back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Requests get this instead of an answer.
    pub refusal: Option<Refusal>,
    /// Requests wait this long for the beginning of their answer.
    pub delay: Option<Duration>,
    /// Connections stay open and nothing is sent on them: requests and running watches wait for its end.
    pub silent: bool,
    /// Requests to paths that end so wait for its end; the others do not.
    pub silent_about: Option<String>,
    /// Lists and watches break off, and their connection with them.
    pub cut: Option<Cut>,
    /// Lists and watches come in pieces of so many bytes, with this pause after each.
    pub drip: Option<(usize, Duration)>,
    /// The JSON of lists and of watch events ends in its middle, in a response that is whole for HTTP.
    pub truncated: bool,
    /// Every list and every watch has this among its good objects. A place for something that is no Service at all.
    pub malformed: Option<serde_json::Value>,
    /// Watches get no bookmarks, though asked for; the one that ends the initial events is [`Faults::no_initial_end`].
    pub no_bookmarks: bool,
    /// Streaming lists do not get the bookmark that ends the initial events.
    pub no_initial_end: bool,
    /// Which server this is with regard to `sendInitialEvents`.
    pub streaming_lists: StreamingLists,
    /// A watch from a compacted version is refused with the HTTP status 410; a real server answers 200 and then an
    /// ERROR event.
    pub expired_as_status: bool,
}

impl Faults {
    /// All that there are, one at a time, with a name; those that come in several forms in each of them.
    #[must_use]
    pub fn each() -> Vec<(String, Self)> {
        let refusals = [
            RefuseWith::TooManyRequests(1),
            RefuseWith::CacheNotReady(1),
            RefuseWith::Internal,
            RefuseWith::Unavailable,
        ];
        let cuts = [Cut::AfterBytes(0), Cut::AfterBytes(2000), Cut::InTheMiddle];
        let lists = [StreamingLists::Off, StreamingLists::Unknown];
        let malformed = serde_json::json!({"metadata": {"name": 7}, "spec": []});
        let pause = Duration::from_millis;
        let none = Self::default;
        let mut each = Vec::new();
        let mut add = |name: &dyn std::fmt::Debug, faults: Self| each.push((format!("{name:?}"), faults));
        for with in refusals {
            add(&with, Self { refusal: Some(Refusal { with, requests: None }), ..none() });
        }
        for cut in cuts {
            add(&cut, Self { cut: Some(cut), ..none() });
        }
        for streaming_lists in lists {
            add(&streaming_lists, Self { streaming_lists, ..none() });
        }
        add(&"delay", Self { delay: Some(pause(200)), ..none() });
        add(&"silent", Self { silent: true, ..none() });
        add(&"drip", Self { drip: Some((64, pause(1))), ..none() });
        add(&"truncated", Self { truncated: true, ..none() });
        add(&"malformed", Self { malformed: Some(malformed), ..none() });
        add(&"no bookmarks", Self { no_bookmarks: true, ..none() });
        add(&"no initial end", Self { no_initial_end: true, ..none() });
        add(&"410", Self { expired_as_status: true, ..none() });
        each
    }
}

/// An answer that has nothing to do with the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is answered.
    pub with: RefuseWith,
    /// For so many requests; none for all.
    pub requests: Option<u32>,
}

/// See [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseWith {
    /// 429 as priority and fairness sends it: plain text. Seconds in `Retry-After`.
    TooManyRequests(u32),
    /// 429 with a Status, as of a server whose watch cache is not filled yet. Seconds in `Retry-After`.
    CacheNotReady(u32),
    /// 500.
    Internal,
    /// 503.
    Unavailable,
}

/// Where an answer breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// After so many bytes of the body, which may be 0.
    AfterBytes(usize),
    /// In the middle of a list, or of the next event.
    InTheMiddle,
}

/// What servers do with `sendInitialEvents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamingLists {
    /// They stream: Kubernetes 1.32 and, after a break, from 1.34.
    #[default]
    Supported,
    /// The feature gate WatchList is there and off: 422. By default 1.27 to 1.31, and 1.33.
    Off,
    /// They never heard of it: they ignore it, and refuse with 422 the resourceVersionMatch that comes along.
    Unknown,
}

/// Numbers from a seed (SplitMix64), to split answers with.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % limit.max(1) as u64).unwrap_or(0)
    }
}

/// The body of an answer, fed by a [`Feed`].
pub(super) struct FedBody(mpsc::Receiver<io::Result<Bytes>>);

impl Body for FedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }
}

/// The client is gone, or the answer was cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Whoever reads a body.
pub(super) struct Reader(mpsc::Sender<io::Result<Bytes>>);

impl Reader {
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// Sends a body, in pieces that end anywhere, and with the faults of the moment.
pub(super) struct Feed {
    to: mpsc::Sender<io::Result<Bytes>>,
    faults: watch::Receiver<Faults>,
    dice: Dice,
    sent: usize,
}

impl Feed {
    pub(super) fn new(faults: watch::Receiver<Faults>, dice: Dice) -> (Self, FedBody) {
        let (to, from) = mpsc::channel(4);
        (Self { to, faults, dice, sent: 0 }, FedBody(from))
    }

    /// What tells when nobody reads any more. The body does not end before it is dropped, too.
    pub(super) fn reader(&self) -> Reader {
        Reader(self.to.clone())
    }

    /// Sends one unit, a list or an event: whole, or as the faults have it.
    pub(super) async fn send(&mut self, unit: &str) -> Result<(), Gone> {
        let _ = self.faults.wait_for(|faults| !faults.silent).await;
        let faults = self.faults.borrow().clone();
        let unit = unit.as_bytes();
        let good = match faults.cut {
            Some(Cut::AfterBytes(limit)) => limit.saturating_sub(self.sent).min(unit.len()),
            Some(Cut::InTheMiddle) => unit.len() / 2,
            None if faults.truncated => unit.len() / 2,
            None => unit.len(),
        };
        let is_cut = match faults.cut {
            Some(Cut::AfterBytes(limit)) => self.sent + unit.len() >= limit,
            Some(Cut::InTheMiddle) => true,
            None => false,
        };
        self.send_pieces(&unit[..good]).await?;
        if is_cut {
            let _ = self.to.send(Err(io::ErrorKind::ConnectionAborted.into())).await;
        }
        // Truncated JSON ends the response, as from a proxy that gave up in an orderly way.
        if is_cut || faults.truncated { Err(Gone) } else { Ok(()) }
    }

    async fn send_pieces(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let drip = match self.faults.wait_for(|faults| !faults.silent).await {
                Ok(faults) => faults.drip,
                Err(_) => return Err(Gone),
            };
            let length = match drip {
                Some((length, _)) => length.clamp(1, bytes.len()),
                None => 1 + self.dice.below(bytes.len()),
            };
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            self.sent += length;
            self.to.send(Ok(Bytes::copy_from_slice(piece))).await.map_err(|_| Gone)?;
            if let Some((_, pause)) = drip {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }
}
