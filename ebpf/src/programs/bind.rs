//! Keeps processes of the node from taking node ports: `bind` fails as if somebody had the port already, for nobody would
//! ever reach them there.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use weir_ebpf::abi::{Addr, Peer, Port, Protocol};
use weir_ebpf::datapath::bind::{EADDRINUSE, is_refused};

use crate::kernel_tables::KernelTables;

/// The system call goes on.
const PROCEED: i32 = 1;
/// The system call fails with the error given to `bpf_set_retval`.
const REJECT: i32 = 0;

#[inline(always)]
fn post_bind(ctx: &SockContext, read: impl FnOnce(*mut bpf_sock) -> Addr) -> i32 {
    let socket = ctx.sock;
    // SAFETY: the kernel's context, readable at these offsets by hooks of this type. The port is in host order.
    let (number, port) = unsafe { ((*socket).protocol, (*socket).src_port) };
    let Some(protocol) = Protocol::from_number(number) else { return PROCEED };
    let local = Peer { addr: read(socket), port: Port::new(port as u16) };
    // SAFETY: the context pointer that the helper asks for.
    let netns = || unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if !is_refused(&KernelTables, protocol, local, netns) {
        return PROCEED;
    }
    // SAFETY: any value is allowed; errors are negative.
    unsafe { bpf_set_retval(-EADDRINUSE) };
    REJECT
}

#[cgroup_sock(post_bind4)]
fn weir_bind4(ctx: SockContext) -> i32 {
    // SAFETY: readable in this hook.
    post_bind(&ctx, |socket| Addr::from_v4(unsafe { (*socket).src_ip4 }))
}

#[cgroup_sock(post_bind6)]
fn weir_bind6(ctx: SockContext) -> i32 {
    // SAFETY: readable in this hook, word by word; volatile keeps the words apart.
    post_bind(&ctx, |socket| {
        Addr::from_words(unsafe {
            let words = (&raw const (*socket).src_ip6).cast::<u32>();
            [
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ]
        })
    })
}
