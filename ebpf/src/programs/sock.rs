//! The end of a socket: what was remembered of it goes with it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use weir_ebpf::datapath::socket;

use crate::kernel_tables::KernelTables;

#[cgroup_sock(sock_release)]
fn weir_release(ctx: SockContext) -> i32 {
    // SAFETY: the context pointer that the helper asks for.
    socket::release(&KernelTables, unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    1
}
