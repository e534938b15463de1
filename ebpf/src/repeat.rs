//! Loops that the verifier follows once.
//!
//! The kernel checks a loop of a program by walking through it, each step anew. `bpf_loop` (Linux 5.17) is a loop whose
//! body it checks by itself; elsewhere this is an ordinary one.

use core::ops::ControlFlow;

/// Runs `body` with 0, 1, 2 and so on, at most `times` times, until it breaks.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn repeat<F: FnMut(u32) -> ControlFlow<()>>(times: u32, mut body: F) {
    /// `enum bpf_func_id` (include/uapi/linux/bpf.h): BPF_FUNC_loop.
    const BPF_LOOP: usize = 181;
    type Step<F> = unsafe extern "C" fn(u32, *mut F) -> i64;

    unsafe extern "C" fn step<F: FnMut(u32) -> ControlFlow<()>>(index: u32, body: *mut F) -> i64 {
        // SAFETY: the pointer that `repeat` gave, while it runs.
        match unsafe { (*body)(index) } {
            ControlFlow::Continue(()) => 0,
            ControlFlow::Break(()) => 1,
        }
    }

    // SAFETY: a helper is called by its number; its arguments are as the kernel declares them.
    let bpf_loop: unsafe extern "C" fn(u32, Step<F>, *mut F, u64) -> i64 =
        unsafe { core::mem::transmute(BPF_LOOP) };
    // SAFETY: `body` outlives the call.
    unsafe { bpf_loop(times, step::<F>, &raw mut body, 0) };
}

/// Runs `body` with 0, 1, 2 and so on, at most `times` times, until it breaks.
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn repeat(times: u32, body: impl FnMut(u32) -> ControlFlow<()>) {
    let _stopped = (0..times).try_for_each(body);
}
