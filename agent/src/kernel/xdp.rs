//! Attaching the XDP program to node-facing devices, where it was asked for (`--xdp`).
//!
//! A link is pinned beside those of the tc programs, as `devices/<hook>_<index of the device>`, and asked each time what it
//! is, as they are. The hook's name says the mode: the kernel would not tell, and does not allow both on one device.

use std::collections::BTreeMap;
use std::io;

use super::bpf_fs::PinRoot;
use super::sys::{LinkPoint, XdpFlags};
use super::tc::{self, DeviceKind, Loaded};
use crate::network::Xdp;

/// The program in the object.
pub(super) const XDP_PROGRAM: &str = "weir_xdp";
/// The hook in the driver.
const NATIVE: &str = "weir_xdp_native";
/// The hook of the stack, after the driver has made a packet of the stack's own.
const GENERIC: &str = "weir_xdp_generic";

/// Whether that is a hook of this program.
pub(super) fn is_xdp(hook: &str) -> bool {
    [NATIVE, GENERIC].contains(&hook)
}

/// Gives the program to every node-facing device with Ethernet headers, and takes it from all others; without a program
/// from all. Returns what is wrong with which device: its packets go on by tc.
pub(super) fn sync_devices(
    root: &PinRoot,
    wanted: &BTreeMap<u32, DeviceKind>,
    mode: Xdp,
    program: Option<&Loaded<'_>>,
) -> anyhow::Result<Vec<(u32, String)>> {
    let chosen = match (mode, program) {
        (Xdp::Native, Some(program)) => Some((NATIVE, XdpFlags::Driver, program)),
        (Xdp::Generic, Some(program)) => Some((GENERIC, XdpFlags::Stack, program)),
        (Xdp::Off, _) | (_, None) => None,
    };
    let is_wanted = |device| wanted.get(&device) == Some(&DeviceKind::Net);
    // First: a device takes one mode only.
    tc::remove_others(root, |hook, device| {
        !is_xdp(hook) || (chosen.as_ref().is_some_and(|(name, ..)| *name == hook) && is_wanted(device))
    })?;
    let Some((name, flags, program)) = chosen else { return Ok(Vec::new()) };
    let mut problems = Vec::new();
    for device in wanted.keys().copied().filter(|device| is_wanted(*device)) {
        let pin = root.devices().join(tc::pin_name(name, device));
        match tc::ensure_link(&pin, device, LinkPoint::Xdp(flags), program) {
            Ok(()) => {}
            Err(error) if tc::is_gone(&error) || !exists(device) => {}
            Err(error) => problems.push((device, explain(mode, &error))),
        }
    }
    Ok(problems)
}

/// Of a device that is gone the kernel says no more than that something is invalid.
fn exists(device: u32) -> bool {
    // Where there is none, this gives an empty name, not an error.
    nix::net::if_::if_indextoname(device).is_ok_and(|name| !name.is_empty())
}

/// What a person can do about it.
fn explain(mode: Xdp, error: &anyhow::Error) -> String {
    let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    let why = match (mode, code) {
        (Xdp::Native, Some(libc::EOPNOTSUPP)) => "its driver takes no XDP programs (--xdp native)".to_owned(),
        (_, Some(libc::EBUSY | libc::EEXIST)) => "it has somebody else's XDP program".to_owned(),
        _ => format!("it does not take the XDP program: {error:#}"),
    };
    format!("{why}; its packets go on by tc, as without --xdp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_that_says_what_is_so() {
        let refused = |code| anyhow::Error::from(io::Error::from_raw_os_error(code)).context("attaching");
        assert_eq!(
            explain(Xdp::Native, &refused(libc::EOPNOTSUPP)),
            "its driver takes no XDP programs (--xdp native); its packets go on by tc, as without --xdp"
        );
        assert!(explain(Xdp::Generic, &refused(libc::EBUSY)).contains("somebody else's"));
        let other = explain(Xdp::Native, &refused(libc::ERANGE));
        assert!(other.contains("attaching: ") && !other.contains('\n'), "{other}");
    }
}
