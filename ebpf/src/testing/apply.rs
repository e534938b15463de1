//! Carries out verdicts on packets that are vectors of bytes, as the programs do on packets in the kernel.
//!
//! What is written into a packet is decided in [`crate::act`] for both; this is what the kernel's helpers do. Called by
//! the tests' packet path and by the fuzzers.

use crate::abi::{DropReason, Workload};
use crate::act::answer::{Reshape, answer, answer_too_long};
use crate::act::checksum::Sum;
use crate::act::ethernet::{ETHERNET, addressed};
use crate::act::reset::{self, Segment};
use crate::act::rewrite::{Frame, Stuck, rewrite};
use crate::datapath::packet::{Cut, Onward, Translation, Verdict};
use crate::wire::{Bytes, Packet};

/// What happens to a packet after a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It goes on as it came; the last hook looks at it.
    Untouched,
    /// It goes on through the stack with what was written into it; the last hook looks at it.
    Stack,
    /// It leaves by the route to its destination.
    Routed,
    /// It goes into the pod.
    Delivered(Workload),
    /// It has become an answer and leaves by the device that it came from.
    Answered,
    /// It has become a reset that leaves by the device of the hook; another enters by it ([`cut_entering`]).
    Cut,
    /// It is gone; why, unless for lack of memory or because no answer may be given.
    Dropped(Option<DropReason>),
}

/// Carries out the verdict.
///
/// The way of a routed packet (next hop, Ethernet addresses) is the kernel's to find and not written here.
pub fn apply(frame: &mut Vec<u8>, packet: &Packet, verdict: &Verdict) -> Outcome {
    let done = match verdict {
        Verdict::Pass => Ok(Outcome::Untouched),
        Verdict::Drop(reason) => Ok(Outcome::Dropped(Some(*reason))),
        Verdict::Answer(what) => answer(&mut Buffer(frame), packet, *what)
            .map(|answered| if answered { Outcome::Answered } else { Outcome::Dropped(None) }),
        Verdict::Translate(translation) => translate(frame, packet, translation),
        Verdict::Cut(_, cut) => tell_both(frame, packet, cut).map(|_entering| Outcome::Cut),
    };
    done.unwrap_or(Outcome::Dropped(None))
}

/// What the programs do where the way on takes only packets of `mtu` bytes: the sender is told, if it wants to know, and
/// otherwise the packet is the stack's.
pub fn apply_too_long(frame: &mut Vec<u8>, packet: &Packet, mtu: u16) -> Outcome {
    match answer_too_long(&mut Buffer(frame), packet, mtu) {
        Ok(true) => Outcome::Answered,
        Ok(false) => Outcome::Untouched,
        Err(Stuck) => Outcome::Dropped(None),
    }
}

/// Of a packet of a connection that policies cut: the reset that enters by the device of the hook. `None`: the packet is too
/// short.
#[must_use]
pub fn cut_entering(frame: &[u8], packet: &Packet, cut: &Cut) -> Option<Vec<u8>> {
    tell_both(&mut frame.to_vec(), packet, cut).ok()
}

/// The frame becomes what leaves by the device; returns what enters.
fn tell_both(frame: &mut Vec<u8>, packet: &Packet, cut: &Cut) -> Result<Vec<u8>, Stuck> {
    let mut buffer = Buffer(frame);
    let segment = Segment::load(&buffer, packet)?;
    reset::cut_entering(&mut buffer, packet, cut, &segment)?;
    let entering = buffer.0.clone();
    reset::cut_leaving(&mut buffer, packet, cut, &segment)?;
    Ok(entering)
}

fn translate(frame: &mut Vec<u8>, packet: &Packet, translation: &Translation) -> Result<Outcome, Stuck> {
    let mut buffer = Buffer(frame);
    match translation.onward {
        Onward::Stack => {
            rewrite(&mut buffer, packet, translation, false)?;
            Ok(Outcome::Stack)
        }
        Onward::Route => {
            rewrite(&mut buffer, packet, translation, true)?;
            Ok(Outcome::Routed)
        }
        Onward::Workload(workload) => {
            rewrite(&mut buffer, packet, translation, true)?;
            if packet.l3 == ETHERNET {
                buffer.store(0, addressed(&workload))?;
            }
            Ok(Outcome::Delivered(workload))
        }
    }
}

/// A frame whose checksums are all complete.
struct Buffer<'a>(&'a mut Vec<u8>);

impl Bytes for Buffer<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.as_slice().load(offset)
    }
}

impl Frame for Buffer<'_> {
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck> {
        let from = usize::try_from(offset).map_err(|_| Stuck)?;
        self.0.get_mut(from..from + N).ok_or(Stuck)?.copy_from_slice(&bytes);
        Ok(())
    }
}

impl Reshape for Buffer<'_> {
    fn resize(&mut self, length: u32) -> Result<(), Stuck> {
        self.0.resize(usize::try_from(length).map_err(|_| Stuck)?, 0);
        Ok(())
    }

    fn push(&mut self, length: u32) -> Result<(), Stuck> {
        let length = usize::try_from(length).map_err(|_| Stuck)?;
        self.0.splice(0..0, std::iter::repeat_n(0, length));
        Ok(())
    }

    fn put<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck> {
        self.store(offset, bytes)
    }

    fn put_checksum(&mut self, offset: u32, pseudo: Sum, content: Sum) -> Result<(), Stuck> {
        self.store(offset, pseudo.and(content).checksum().to_ne_bytes())
    }
}
