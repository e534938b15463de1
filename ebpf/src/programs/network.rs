//! The datapath's questions about routes and sockets, by the kernel's helpers.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as FibLookup, bpf_sock_tuple as SockTuple,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use weir_ebpf::abi::{Addr, Hop, Peer, Port, Protocol, Side};
use weir_ebpf::datapath::{Network, PodSocket};

/// `AF_INET`
const INET: u8 = 2;
/// `AF_INET6`, on Linux
const INET6: u8 = 10;
/// What `struct bpf_sock_tuple` has of each family.
const TUPLE_V4: u32 = 12;
const TUPLE_V6: u32 = 36;

/// The network namespace of a hook at a device.
pub(crate) struct Here {
    pub(crate) context: *mut c_void,
    /// The device by which a packet came, or leaves.
    pub(crate) ifindex: u32,
}

/// The address of a next hop, as `bpf_redirect_neigh` takes it (`struct bpf_redir_neigh`).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct NextHop {
    family: u32,
    addr: [u32; 4],
}

/// What the stack would do with a packet.
pub(crate) enum Way {
    /// Out to this next hop.
    Known(Hop, NextHop),
    /// Out by this device; the next hop's Ethernet address is not known yet.
    Unresolved { ifindex: u32, next: NextHop },
    /// It is longer than this, which is the most that the way on takes.
    TooLong { ifindex: u32, mtu: u16 },
    /// Nowhere: delivered here, dropped, or by a way that only the stack knows.
    None,
}

impl Here {
    /// Where the stack would forward a packet of this length (0: any) that came by this device.
    #[inline(always)]
    pub(crate) fn lookup_way(&self, src: Addr, dst: Addr, length: u16) -> Way {
        let mut asked = MaybeUninit::uninit();
        let asked = clear::<FibLookup>(&mut asked);
        asked.ifindex = self.ifindex;
        asked.__bindgen_anon_1.tot_len = length;
        if dst.is_v4() {
            asked.family = INET;
            asked.__bindgen_anon_3.ipv4_src = src.v4();
            asked.__bindgen_anon_4.ipv4_dst = dst.v4();
        } else {
            asked.family = INET6;
            asked.__bindgen_anon_3.ipv6_src = src.words();
            asked.__bindgen_anon_4.ipv6_dst = dst.words();
        }
        // SAFETY: the context of a hook that has the helper, and a structure of that size.
        let result = unsafe { bpf_fib_lookup(self.context, asked, size_of::<FibLookup>() as i32, 0) };
        let ifindex = asked.ifindex;
        match result as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                // SAFETY: both readings of the field are numbers. The kernel writes it only if a length was given.
                let mtu = if length == 0 { 0 } else { unsafe { asked.__bindgen_anon_1.mtu_result } };
                Way::Known(Hop { ifindex, mtu, dst: asked.dmac, src: asked.smac }, next_hop(asked))
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => Way::Unresolved { ifindex, next: next_hop(asked) },
            BPF_FIB_LKUP_RET_FRAG_NEEDED => {
                // SAFETY: both readings of the field are numbers.
                Way::TooLong { ifindex, mtu: unsafe { asked.__bindgen_anon_1.mtu_result } }
            }
            _ => Way::None,
        }
    }
}

/// A question to a helper: numbers of 32 bits and less, for which zero is a value.
///
/// # Safety
/// That it is so.
unsafe trait Question {}

// SAFETY: see include/uapi/linux/bpf.h.
unsafe impl Question for FibLookup {}
// SAFETY: likewise.
unsafe impl Question for SockTuple {}

/// The answer's next hop, which stands where the destination stood; of another family than that, perhaps (RFC 8950).
#[inline(always)]
fn next_hop(answer: &FibLookup) -> NextHop {
    // SAFETY: all readings of the field are numbers. Of an IPv4 address the first word alone counts.
    NextHop { family: u32::from(answer.family), addr: unsafe { answer.__bindgen_anon_4.ipv6_dst } }
}

/// Nothing is asked yet. In words: what the compiler makes of the whole is a function that loops over its bytes, once for
/// each packet, and takes a frame of the little stack.
#[inline(always)]
fn clear<Q: Question>(asked: &mut MaybeUninit<Q>) -> &mut Q {
    const {
        assert!(size_of::<Q>().is_multiple_of(size_of::<u32>()), "no bytes are left over");
        assert!(align_of::<Q>() == align_of::<u32>(), "words are where they may be");
    };
    let words = asked.as_mut_ptr().cast::<u32>();
    for at in 0..size_of::<Q>() / size_of::<u32>() {
        // SAFETY: within the structure, which is aligned to its numbers.
        unsafe { words.add(at).write_volatile(0) };
    }
    // SAFETY: numbers, for which zero is a value.
    unsafe { asked.assume_init_mut() }
}

impl Network for Here {
    #[inline(always)]
    fn route(&self, src: Addr, dst: Addr) -> Option<u32> {
        match lookup_device(self, &src, &dst) {
            0 => None,
            ifindex => Some(ifindex),
        }
    }

    #[inline(always)]
    fn has_socket(&self, protocol: Protocol, local: Peer, remote: Peer) -> bool {
        has_socket(self.context, protocol, &local, &remote)
    }

    #[inline(always)]
    fn lookup_socket(&self, netns: u64, protocol: Protocol, pod: Peer, peer: Peer) -> PodSocket {
        let found = part_of(self.context, netns, protocol, &pod, &peer);
        let side = if found & FOR_PEER == 0 { Side::Egress } else { Side::Ingress };
        match found & !FOR_PEER {
            CONNECTED => PodSocket::Connected(side),
            OPENS => PodSocket::Opens(side),
            WAITS => PodSocket::Waits,
            _ => PodSocket::None,
        }
    }
}

/// The index of the device by which the stack would forward; 0: by none. A function of its own for the sake of the stack.
#[inline(never)]
fn lookup_device(here: &Here, src: &Addr, dst: &Addr) -> u32 {
    match here.lookup_way(*src, *dst, 0) {
        Way::Known(Hop { ifindex, .. }, _)
        | Way::Unresolved { ifindex, .. }
        | Way::TooLong { ifindex, .. } => ifindex,
        Way::None => 0,
    }
}

/// Whether the network namespace of this context has a socket for packets from `remote` to `local`.
#[inline(never)]
pub(crate) fn has_socket(context: *mut c_void, protocol: Protocol, local: &Peer, remote: &Peer) -> bool {
    let mut tuple = MaybeUninit::uninit();
    let tuple = clear::<SockTuple>(&mut tuple);
    let size = fill(tuple, local, remote);
    let (tuple, here) = (&raw mut *tuple, BPF_F_CURRENT_NETNS as u64);
    // SAFETY: the context of a hook that has the helpers, and a tuple of that size.
    let socket = unsafe {
        match protocol {
            Protocol::Tcp => bpf_skc_lookup_tcp(context, tuple, size, here, 0).cast::<c_void>(),
            Protocol::Udp => bpf_sk_lookup_udp(context, tuple, size, here, 0).cast::<c_void>(),
            // The kernel has no look-up of SCTP sockets.
            Protocol::Sctp => return false,
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: looked up above, released once.
    unsafe { bpf_sk_release(socket) };
    true
}

/// What [`part_of`] says: one of these,
const NOTHING: u32 = 0;
const WAITS: u32 = 1;
const OPENS: u32 = 2;
const CONNECTED: u32 = 3;
/// and this.
const FOR_PEER: u32 = 4;

/// `TCP_ESTABLISHED`, also of a UDP socket that is connected.
const ESTABLISHED: u32 = 1;
/// `TCP_SYN_SENT`
const SYN_SENT: u32 = 2;
/// `TCP_SYN_RECV`
const SYN_RECEIVED: u32 = 3;
/// `TCP_NEW_SYN_RECV`
const NEW_SYN_RECEIVED: u32 = 12;
/// `TCP_LISTEN`
const LISTEN: u32 = 10;

/// What a network namespace has at this end, and whether another socket is there for anybody. A function of its own for the sake
/// of the stack.
#[inline(never)]
fn part_of(context: *mut c_void, netns: u64, protocol: Protocol, local: &Peer, remote: &Peer) -> u32 {
    // Nothing is connected to port 0.
    let anybody = Peer { port: Port::default(), ..*remote };
    let (found, waits) = match protocol {
        Protocol::Tcp => {
            let found = match lookup_state::<true>(context, netns, local, remote) {
                0 => return NOTHING,
                LISTEN => return WAITS,
                // Who waits for an answer began.
                SYN_SENT => return OPENS,
                SYN_RECEIVED | NEW_SYN_RECEIVED => OPENS,
                _ => CONNECTED,
            };
            (found, lookup_state::<true>(context, netns, local, &anybody))
        }
        Protocol::Udp => match lookup_state::<false>(context, netns, local, remote) {
            0 => return NOTHING,
            ESTABLISHED => (CONNECTED, lookup_state::<false>(context, netns, local, &anybody)),
            _ => return WAITS,
        },
        Protocol::Sctp => return NOTHING,
    };
    if waits == 0 { found } else { found | FOR_PEER }
}

/// The state of the socket that would get a packet from `remote` to `local`; 0: there is none. Of each protocol in a function of
/// its own: what the two helpers give the verifier takes for two types, and each reads its own.
#[inline(never)]
fn lookup_state<const IS_TCP: bool>(context: *mut c_void, netns: u64, local: &Peer, remote: &Peer) -> u32 {
    let mut tuple = MaybeUninit::uninit();
    let tuple = clear::<SockTuple>(&mut tuple);
    let size = fill(tuple, local, remote);
    let tuple = &raw mut *tuple;
    // SAFETY: the context of a hook that has the helpers, and a tuple of that size.
    let socket = unsafe {
        if IS_TCP {
            bpf_skc_lookup_tcp(context, tuple, size, netns, 0)
        } else {
            bpf_sk_lookup_udp(context, tuple, size, netns, 0)
        }
    };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: looked up above, released once.
    unsafe {
        let state = (&raw const (*socket).state).read_volatile();
        bpf_sk_release(socket.cast());
        state
    }
}

/// Writes the ends of a packet from `remote` to `local`; returns the size of what counts of it.
#[inline(always)]
fn fill(tuple: &mut SockTuple, local: &Peer, remote: &Peer) -> u32 {
    if local.addr.is_v4() {
        // SAFETY: the part of the family, all of it numbers.
        let tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        tuple.saddr = remote.addr.v4();
        tuple.daddr = local.addr.v4();
        tuple.sport = remote.port.network();
        tuple.dport = local.port.network();
        return TUPLE_V4;
    }
    // SAFETY: as above.
    let tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
    tuple.saddr = remote.addr.words();
    tuple.daddr = local.addr.words();
    tuple.sport = remote.port.network();
    tuple.dport = local.port.network();
    TUPLE_V6
}
