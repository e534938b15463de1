//! The nanoseconds of `weir_from_net` itself, by running it on packets without any device (`BPF_PROG_TEST_RUN`).
//!
//! It changes the packets of a flow, so each run gets a fresh one, and the kernel looks at its clock before and after each:
//! what that costs is in every number here.

use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use weir_tests::lab::netns::Netns;

use super::flush::{info, open};
use super::frame::write_datagram;
use super::plan::{self, End, FABRIC, Family, SINK_PORT, UPLINK, endpoint};
use crate::programs::bpf;

const TEST_RUN: libc::c_long = 10;
const PROGRAM_BY_ID: libc::c_long = 13;
/// Room for the packet as the program leaves it.
const ROOM: usize = 256;
/// Where the test's client's port is.
const PORT: u16 = 999;

/// Which packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packet {
    /// From the client, of a known flow.
    Forward,
    /// From the backend, of a known flow.
    Reply,
    /// For nobody whom the tables know.
    Other,
}

impl Packet {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reply => "reply",
            Self::Other => "other",
        }
    }
}

/// What runs took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Took {
    /// Which packet.
    pub packet: Packet,
    /// Nanoseconds of one run, in the median run.
    pub median_ns: f64,
}

/// Runs the program for each packet so many times.
///
/// # Errors
/// It is not attached, or does with a packet what it should not.
pub(super) fn measure(node: &Netns, pins: &Path, family: Family, runs: u32) -> Result<Vec<Took>> {
    let client = SocketAddr::new(plan::client(family, 0), PORT);
    let dialled = plan::dial(family, true, 1, 0);
    let mut forward = Vec::new();
    write_datagram(&mut forward, client, dialled)?;
    let mut other = Vec::new();
    write_datagram(&mut other, client, SocketAddr::new(endpoint(family, 0, 0), SINK_PORT))?;
    let pins = pins.to_owned();
    node.enter(move || {
        let [uplink, fabric] = [UPLINK, FABRIC].map(|device| Hook::find(&pins, device));
        let (uplink, fabric) = (uplink?, fabric?);
        let sent = uplink.run(&forward)?.packet;
        ensure!(sent != forward, "the node port is not translated");
        let reply = turned(&sent)?;
        ensure!(fabric.run(&reply)?.packet != reply, "the reply is not translated");
        ensure!(uplink.run(&other)?.packet == other, "what is none of ours is changed");
        let packets = [
            (Packet::Forward, &uplink, &forward),
            (Packet::Reply, &fabric, &reply),
            (Packet::Other, &uplink, &other),
        ];
        let mut all = Vec::new();
        for (packet, hook, bytes) in packets {
            let mut times =
                (0..runs).map(|_| Ok(hook.run(bytes)?.duration_ns)).collect::<Result<Vec<u32>>>()?;
            times.sort_unstable();
            let median_ns = times.get(times.len() / 2).copied().context("no run")?.into();
            all.push(Took { packet, median_ns });
        }
        Ok(all)
    })
}

/// The answer that the backend would send.
fn turned(sent: &[u8]) -> Result<Vec<u8>> {
    let read = etherparse::SlicedPacket::from_ethernet(sent)?;
    let Some(etherparse::TransportSlice::Udp(udp)) = &read.transport else { anyhow::bail!("no UDP") };
    let (src, dst): (std::net::IpAddr, std::net::IpAddr) = match &read.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => anyhow::bail!("no IP"),
    };
    ensure!(
        src == End::NodeFabric.address(if src.is_ipv4() { Family::V4 } else { Family::V6 }),
        "{src} is not the node"
    );
    let mut frame = Vec::new();
    let (src, dst) = (SocketAddr::new(src, udp.source_port()), SocketAddr::new(dst, udp.destination_port()));
    write_datagram(&mut frame, dst, src)?;
    // By the other wire.
    frame[..6].copy_from_slice(&End::NodeFabric.mac());
    Ok(frame)
}

/// The program at a device.
struct Hook {
    program: OwnedFd,
    ifindex: u32,
}

struct Ran {
    packet: Vec<u8>,
    duration_ns: u32,
}

impl Hook {
    fn find(pins: &Path, device: &str) -> Result<Self> {
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let pin = pins.join("devices").join(format!("weir_from_net_{ifindex}"));
        let link: LinkInfo = info(&open(&pin)?)?;
        let mut by_id = ById { id: link.program, ..ById::default() };
        let fd = bpf(PROGRAM_BY_ID, &mut by_id)?;
        // SAFETY: the kernel made it for us.
        let program = unsafe { OwnedFd::from_raw_fd(fd.try_into()?) };
        Ok(Self { program, ifindex })
    }

    fn run(&self, bytes: &[u8]) -> Result<Ran> {
        let mut packet = vec![0_u8; ROOM];
        let context = SkbContext { ifindex: self.ifindex, ..SkbContext::default() };
        let mut test = TestRun {
            program: self.program.as_raw_fd().cast_unsigned(),
            data_size_in: bytes.len().try_into()?,
            data_size_out: ROOM.try_into()?,
            data_in: bytes.as_ptr() as u64,
            data_out: packet.as_mut_ptr() as u64,
            repeat: 1,
            ctx_size_in: size_of::<SkbContext>().try_into()?,
            ctx_in: (&raw const context) as u64,
            ..TestRun::default()
        };
        bpf(TEST_RUN, &mut test).context("running weir_from_net")?;
        packet.truncate(test.data_size_out as usize);
        Ok(Ran { packet, duration_ns: test.duration })
    }
}

/// `test` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    zero: u32,
}

/// `struct __sk_buff` up to the device.
#[repr(C)]
#[derive(Default)]
struct SkbContext {
    zero: [u32; 10],
    ifindex: u32,
}

/// The beginning of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    open_flags: u32,
}
