//! The socket hooks: connect, sendmsg, recvmsg and getpeername, in both families.
//!
//! Each reads the address that the application gave (or is about to get), asks the datapath and carries out the
//! answer. The kernel offers the address as `user_ip4` to the hooks ending in 4 and as `user_ip6` to those in 6.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use weir_ebpf::abi::{Addr, HookPoint, Peer, PodCgroups, Port, Protocol};
use weir_ebpf::datapath::Socket;
use weir_ebpf::datapath::socket::{self, Errno, Verdict};

use crate::events::tell_socket;
use crate::kernel_tables::{KernelTables, Now};
use crate::maps::POD_CGROUPS;
use crate::network::has_socket;

/// The system call goes on.
const PROCEED: i32 = 1;
/// The system call fails with the error given to `bpf_set_retval`.
const REJECT: i32 = 0;

/// How far below the root of the hierarchy a pod's cgroup may be: `kubepods` is at 1 or 2, in a node that is a container of the
/// machine's at 4, and its pods are one or two below it.
const DEEPEST: i32 = 10;

struct Hook<'a>(&'a SockAddrContext);

impl Hook<'_> {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.0.sock_addr
    }
}

impl Socket for Hook<'_> {
    #[inline(always)]
    fn protocol(&self) -> Option<Protocol> {
        // SAFETY: the kernel's context, readable at this offset by any hook of the type.
        let protocol = unsafe { (*self.raw()).protocol };
        if protocol == Protocol::Tcp as u32 {
            return Some(Protocol::Tcp);
        }
        (protocol == Protocol::Udp as u32).then_some(Protocol::Udp)
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context pointer that the helper asks for.
        unsafe { bpf_get_socket_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the context pointer that the helper asks for.
        unsafe { bpf_get_netns_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn is_in_unseen_pod(&self) -> bool {
        let mut is_in_pod = false;
        let mut level = 1;
        while level <= DEEPEST {
            // SAFETY: the helper takes any level; 0 is no cgroup's id.
            let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
            if ancestor == 0 {
                break;
            }
            // SAFETY: a number, read at once.
            match unsafe { POD_CGROUPS.get(ancestor) } {
                Some(&PodCgroups::SEEN) => return false,
                Some(_) => is_in_pod = true,
                None => {}
            }
            level += 1;
        }
        is_in_pod
    }

    #[inline(always)]
    fn listens(&self, protocol: Protocol, local: Peer) -> bool {
        let anybody = Peer { addr: local.addr.unspecified(), port: Port::new(0) };
        has_socket(self.0.as_ptr(), protocol, &local, &anybody)
    }
}

/// How a hook's context holds an address.
trait Family {
    fn read(ctx: *mut bpf_sock_addr) -> Addr;
    fn write(ctx: *mut bpf_sock_addr, addr: Addr);

    #[inline(always)]
    fn peer(hook: &Hook<'_>) -> Peer {
        // SAFETY: as in `protocol`. The port is 16 bits in network order in a field of 32.
        let port = unsafe { (*hook.raw()).user_port };
        Peer { addr: Self::read(hook.raw()), port: Port::from_network(port as u16) }
    }

    #[inline(always)]
    fn replace(hook: &Hook<'_>, peer: Peer) {
        Self::write(hook.raw(), peer.addr);
        // SAFETY: all hooks of this module may write the port.
        unsafe { (*hook.raw()).user_port = u32::from(peer.port.network()) };
    }
}

struct V4;
struct V6;

impl Family for V4 {
    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: readable and writable in the hooks ending in 4.
        Addr::from_v4(unsafe { (*ctx).user_ip4 })
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: Addr) {
        // SAFETY: as above. A frontend's backends are of its own family.
        unsafe { (*ctx).user_ip4 = addr.v4() };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: readable and writable in the hooks ending in 6, word by word; volatile keeps the words apart.
        Addr::from_words(unsafe {
            let words = &raw const (*ctx).user_ip6;
            let words = words.cast::<u32>();
            [
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ]
        })
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: Addr) {
        let [a, b, c, d] = addr.words();
        // SAFETY: as above.
        unsafe {
            let words = &raw mut (*ctx).user_ip6;
            let words = words.cast::<u32>();
            words.write_volatile(a);
            words.add(1).write_volatile(b);
            words.add(2).write_volatile(c);
            words.add(3).write_volatile(d);
        }
    }
}

#[inline(always)]
fn act<F: Family>(hook: &Hook<'_>, point: HookPoint, dialled: Peer, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => PROCEED,
        Verdict::Translate(backend) => {
            F::replace(hook, backend);
            PROCEED
        }
        Verdict::Deny(reason) => {
            tell_socket(hook, &dialled, point, reason);
            // SAFETY: any value is allowed; the kernel negates nothing, so errors are negative.
            unsafe { bpf_set_retval(-(Errno::from(reason) as i32)) };
            REJECT
        }
    }
}

/// Says what was decided, in builds with the feature `log`.
#[cfg(feature = "log")]
#[inline(always)]
fn say(hook: &Hook<'_>, call: &str, dialled: Peer, verdict: &Verdict) {
    use aya_log_ebpf::debug;
    let bytes = |peer: &Peer| -> [u8; 16] { zerocopy::transmute!(peer.addr.words()) };
    let (to, port) = (bytes(&dialled), dialled.port.host());
    match verdict {
        Verdict::Pass => debug!(hook.0, "{} [{:i}]:{}: not a Service", call, to, port),
        Verdict::Translate(backend) => {
            debug!(hook.0, "{} [{:i}]:{} -> [{:i}]:{}", call, to, port, bytes(backend), backend.port.host());
        }
        Verdict::Deny(reason) => debug!(hook.0, "{} [{:i}]:{}: {}", call, to, port, reason.label()),
    }
}

#[cfg(not(feature = "log"))]
#[inline(always)]
fn say(_hook: &Hook<'_>, _call: &str, _dialled: Peer, _verdict: &Verdict) {}

#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    let hook = Hook(ctx);
    let dialled = F::peer(&hook);
    let verdict = socket::connect(&KernelTables, &Now, &hook, dialled);
    say(&hook, "connect", dialled, &verdict);
    act::<F>(&hook, HookPoint::Connect, dialled, verdict)
}

#[inline(always)]
fn sendmsg<F: Family>(ctx: &SockAddrContext) -> i32 {
    let hook = Hook(ctx);
    let dialled = F::peer(&hook);
    let verdict = socket::sendmsg(&KernelTables, &Now, &hook, dialled);
    say(&hook, "sendmsg", dialled, &verdict);
    act::<F>(&hook, HookPoint::SendMsg, dialled, verdict)
}

#[inline(always)]
fn reverse<F: Family>(ctx: &SockAddrContext) -> i32 {
    let hook = Hook(ctx);
    if let Some(peer) = socket::reverse(&KernelTables, &hook, F::peer(&hook)) {
        F::replace(&hook, peer);
    }
    PROCEED
}

#[cgroup_sock_addr(connect4)]
fn weir_connect4(ctx: SockAddrContext) -> i32 {
    connect::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn weir_connect6(ctx: SockAddrContext) -> i32 {
    connect::<V6>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn weir_sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::<V4>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn weir_sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::<V6>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn weir_recvmsg4(ctx: SockAddrContext) -> i32 {
    reverse::<V4>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn weir_recvmsg6(ctx: SockAddrContext) -> i32 {
    reverse::<V6>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn weir_getpeername4(ctx: SockAddrContext) -> i32 {
    reverse::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn weir_getpeername6(ctx: SockAddrContext) -> i32 {
    reverse::<V6>(&ctx)
}
