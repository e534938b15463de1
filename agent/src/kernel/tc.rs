//! Attaching the programs to devices: by TCX links where the kernel has them (6.6), as clsact filters otherwise.
//!
//! A link is pinned as `devices/<program>_<index of the device>`. It outlives the agent, and its program is replaced in
//! one step. When the device goes, the kernel detaches the link, and its pin stands for nothing any more; another device
//! may get the same index. So nothing is remembered here: each time, every pin is asked what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::Context as _;

use super::bpf_fs::{PinRoot, pins};
use super::clsact::Clsact;
use super::sys::{self, LinkPoint, TcxHook};
use super::xdp;

/// What a device needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeviceKind {
    /// The host's end of a pod's veth.
    Pod,
    /// Leads to other nodes and the world; its packets have an Ethernet header.
    Net,
    /// The same without one.
    L3,
}

/// The tc programs and where they belong.
pub(super) const TC_HOOKS: [(&str, DeviceKind, TcxHook); 6] = [
    // The way back before the way there.
    ("weir_to_pod", DeviceKind::Pod, TcxHook::Egress),
    ("weir_from_pod", DeviceKind::Pod, TcxHook::Ingress),
    ("weir_to_net", DeviceKind::Net, TcxHook::Egress),
    ("weir_from_net", DeviceKind::Net, TcxHook::Ingress),
    ("weir_to_l3", DeviceKind::L3, TcxHook::Egress),
    ("weir_from_l3", DeviceKind::L3, TcxHook::Ingress),
];

/// A loaded program: its descriptor and the kernel's id.
pub(super) struct Loaded<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) id: u32,
}

/// A program on a device.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct AttachedDevice {
    /// The program's name.
    pub hook: String,
    /// The device's index.
    pub device: u32,
    /// The kernel's id of the program that runs.
    pub program: u32,
}

/// Whether the kernel has TCX links: then it misses the device, not the command.
pub(super) fn has_tcx(program: BorrowedFd<'_>) -> bool {
    let refused = sys::create_device_link(program, 0, LinkPoint::Tcx(TcxHook::Ingress));
    refused.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

/// Gives every wanted device its programs, and takes them from all others. Devices that are gone are no error; what is
/// wrong with one does not keep the others from theirs.
pub(super) fn sync_devices<'a>(
    root: &PinRoot,
    wanted: &BTreeMap<u32, DeviceKind>,
    program: impl Fn(&str) -> anyhow::Result<Loaded<'a>>,
    clsact: Option<&Clsact>,
) -> anyhow::Result<Vec<(u32, String)>> {
    let mut problems = Vec::new();
    let mut keep = BTreeSet::new();
    for (name, kind, hook) in TC_HOOKS {
        let program = program(name)?;
        for (&device, _) in wanted.iter().filter(|(_, wanted)| **wanted == kind) {
            let done = match clsact {
                None => {
                    let pin = root.devices().join(pin_name(name, device));
                    ensure_link(&pin, device, LinkPoint::Tcx(hook), &program)
                }
                Some(clsact) => clsact.ensure(device, hook, name, &program),
            };
            match done {
                Ok(()) => {
                    keep.insert((name, device));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => problems.push((device, format!("{name}: {error:#}"))),
            }
        }
    }
    remove_others(root, |name, device| {
        xdp::is_xdp(name) || keep.contains(&(name, device)) || problems_of(&problems, device)
    })?;
    if let Some(clsact) = clsact {
        clsact.remove_others(|name, device| keep.contains(&(name, device)))?;
    }
    Ok(problems)
}

/// What could not be renewed stays as it was.
fn problems_of(problems: &[(u32, String)], device: u32) -> bool {
    problems.iter().any(|(with, _)| *with == device)
}

/// The device has this program there, by the link that is pinned.
pub(super) fn ensure_link(
    pin: &Path,
    device: u32,
    point: LinkPoint,
    program: &Loaded<'_>,
) -> anyhow::Result<()> {
    match sys::open_pinned(pin) {
        Ok(link) => {
            let info = sys::link_info(link.as_fd())?;
            if info.device() == Some(device) {
                if info.program == program.id {
                    return Ok(());
                }
                return sys::update_link(link.as_fd(), program.fd).context("replacing the program");
            }
            // Of a device that had this index before.
            fs::remove_file(pin).with_context(|| format!("removing {}", pin.display()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("opening {}", pin.display())),
    }
    let link = sys::create_device_link(program.fd, device, point).context("attaching")?;
    sys::pin(link.as_fd(), pin).with_context(|| format!("pinning {}", pin.display()))
}

/// Detaches and unpins the links that are not to be kept.
pub(super) fn remove_others(root: &PinRoot, keep: impl Fn(&str, u32) -> bool) -> anyhow::Result<()> {
    for pin in pins(&root.devices())? {
        let Some((name, device)) = parse_pin(&pin) else { continue };
        if !keep(name, device) {
            detach(&pin)?;
            fs::remove_file(&pin).with_context(|| format!("removing {}", pin.display()))?;
        }
    }
    Ok(())
}

/// Detaches a pinned link before it returns; one whose device is gone is none any more.
pub(super) fn detach(pin: &Path) -> anyhow::Result<()> {
    let link = sys::open_pinned(pin).with_context(|| format!("opening {}", pin.display()))?;
    match sys::detach_link(link.as_fd()) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => {
            Err(error).with_context(|| format!("detaching {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// The programs that are attached to devices, whether an agent runs or not.
///
/// # Errors
/// What could not be read.
pub fn attached_devices(root: &PinRoot) -> anyhow::Result<Vec<AttachedDevice>> {
    let mut found = Vec::new();
    for pin in pins(&root.devices())? {
        let Some((name, device)) = parse_pin(&pin) else { continue };
        // It may be removed just now.
        let Ok(link) = sys::open_pinned(&pin) else { continue };
        let info = sys::link_info(link.as_fd()).with_context(|| format!("reading {}", pin.display()))?;
        if info.device() == Some(device) {
            found.push(AttachedDevice { hook: name.to_owned(), device, program: info.program });
        }
    }
    found.extend(Clsact::open()?.attached()?);
    found.sort_by(|a, b| (a.device, &a.hook).cmp(&(b.device, &b.hook)));
    Ok(found)
}

pub(super) fn pin_name(program: &str, device: u32) -> String {
    format!("{program}_{device}")
}

fn parse_pin(pin: &Path) -> Option<(&str, u32)> {
    let (name, device) = pin.file_name()?.to_str()?.rsplit_once('_')?;
    Some((name, device.parse().ok()?))
}

pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    code == Some(libc::ENODEV)
}
