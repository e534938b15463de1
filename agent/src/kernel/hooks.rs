//! Attaching the programs, once and for all: each hook's link is pinned, and only its program is ever replaced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, ProgramError, SchedClassifier};

use super::bpf_fs::PinRoot;
use super::clsact::Clsact;
use super::sys;
use super::tc::{self, DeviceKind, Loaded, TC_HOOKS};
use super::xdp::{self, XDP_PROGRAM};
use crate::network::Xdp;

/// The programs on the node's cgroup.
const CGROUP_HOOKS: [&str; 11] = [
    // What forgets a socket before what remembers it.
    "weir_release",
    // The way back before the way there: no socket is translated whose answers would not be.
    "weir_recvmsg4",
    "weir_recvmsg6",
    "weir_getpeername4",
    "weir_getpeername6",
    "weir_sendmsg4",
    "weir_sendmsg6",
    "weir_connect4",
    "weir_connect6",
    // Last: what it guards is served by now.
    "weir_bind4",
    "weir_bind6",
];

/// Programs that are loaded and ready to be attached.
#[derive(Debug)]
pub struct Hooks {
    programs: Ebpf,
    has_tcx: bool,
    xdp: Xdp,
}

/// A hook that is pinned: its name, the program's id, and whether it is still attached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Attached {
    /// The program's name.
    pub hook: String,
    /// The kernel's id of the program that runs.
    pub program: u32,
    /// The cgroup's id (the inode number of its directory); 0 where the cgroup is gone.
    pub cgroup: u64,
}

impl Hooks {
    /// Has the kernel verify every program but that for XDP.
    ///
    /// # Errors
    /// Which program, and the end of what the verifier said.
    pub fn load(mut programs: Ebpf) -> anyhow::Result<Self> {
        #[cfg(feature = "log")]
        super::program_log::forward(&mut programs)?;
        for name in CGROUP_HOOKS {
            load(program(&mut programs, name)?).map_err(|error| explain(name, &error))?;
        }
        for (name, ..) in TC_HOOKS {
            load(program(&mut programs, name)?).map_err(|error| explain(name, &error))?;
        }
        let mut hooks = Self { programs, has_tcx: false, xdp: Xdp::Off };
        hooks.has_tcx = tc::has_tcx(hooks.device_program(TC_HOOKS[0].0)?.fd);
        Ok(hooks)
    }

    /// Has the kernel verify the program for XDP as well, where it is wanted.
    ///
    /// # Errors
    /// The end of what the verifier said.
    pub fn with_xdp(mut self, mode: Xdp) -> anyhow::Result<Self> {
        if mode != Xdp::Off {
            load(program(&mut self.programs, XDP_PROGRAM)?).map_err(|error| explain(XDP_PROGRAM, &error))?;
        }
        Ok(Self { xdp: mode, ..self })
    }

    pub(super) fn xdp_program(&self) -> anyhow::Result<Option<Loaded<'_>>> {
        if self.xdp == Xdp::Off {
            return Ok(None);
        }
        let program: &aya::programs::Xdp = self
            .programs
            .program(XDP_PROGRAM)
            .ok_or_else(|| anyhow!("the object has no program {XDP_PROGRAM}"))?
            .try_into()?;
        Ok(Some(Loaded { fd: program.fd()?.as_fd(), id: program.info()?.id() }))
    }

    /// The same as on a kernel without TCX links.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn without_tcx(self) -> Self {
        Self { has_tcx: false, ..self }
    }

    pub(super) fn device_program(&self, name: &str) -> anyhow::Result<Loaded<'_>> {
        let program: &SchedClassifier = self
            .programs
            .program(name)
            .ok_or_else(|| anyhow!("the object has no program {name}"))?
            .try_into()?;
        Ok(Loaded { fd: program.fd()?.as_fd(), id: program.info()?.id() })
    }

    /// Gives every wanted device its programs, and takes them from all others. Returns what is wrong with which.
    ///
    /// # Errors
    /// What concerns no single device.
    pub fn sync_devices(
        &self,
        root: &PinRoot,
        wanted: &BTreeMap<u32, DeviceKind>,
    ) -> anyhow::Result<Vec<(u32, String)>> {
        let clsact = if self.has_tcx { None } else { Some(Clsact::open()?) };
        let mut problems = tc::sync_devices(root, wanted, |name| self.device_program(name), clsact.as_ref())?;
        // Last: what it passes on needs the others.
        problems.extend(xdp::sync_devices(root, wanted, self.xdp, self.xdp_program()?.as_ref())?);
        Ok(problems)
    }

    /// Attaches every program to the cgroup, or replaces the one that an earlier agent attached there: the kernel
    /// does that in one step, so no socket meets neither of them.
    ///
    /// # Errors
    /// Which program could not be attached, and why.
    pub fn attach(&mut self, root: &PinRoot, cgroup: &Path) -> anyhow::Result<()> {
        let directory = File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
        let id = directory.metadata()?.ino();
        for name in CGROUP_HOOKS {
            let program = program(&mut self.programs, name)?;
            attach(program, &directory, id, &root.links().join(name))
                .with_context(|| format!("attaching {name} to {}", cgroup.display()))?;
        }
        Ok(())
    }
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Program> {
    programs.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// A new link, which lives as long as somebody holds it.
fn link(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    let link = match program {
        Program::CgroupSockAddr(program) => {
            let link = program.attach(cgroup, CgroupAttachMode::default())?;
            FdLink::try_from(program.take_link(link)?)
        }
        Program::CgroupSock(program) => {
            let link = program.attach(cgroup, CgroupAttachMode::default())?;
            FdLink::try_from(program.take_link(link)?)
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    // The kernel has had links for cgroups since 5.7, long before our floor.
    link.map_err(|_| ProgramError::UnexpectedProgramType)
}

fn attach(program: &mut Program, cgroup: &File, id: u64, pin: &Path) -> anyhow::Result<()> {
    // A BPF file system allows no dot in a name. An agent that died before the renaming below left this one.
    let aside = pin.with_file_name(format!("{}_new", pin.file_name().unwrap_or_default().display()));
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if !pin.exists() {
        link(program, cgroup)?.pin(pin)?;
        return Ok(());
    }
    let before = sys::open_pinned(pin)?;
    if sys::link_info(before.as_fd())?.cgroup == id {
        return Ok(sys::update_link(before.as_fd(), program.fd()?.as_fd())?);
    }
    // Another cgroup than before: the new link is there before the old one goes, and the old one goes at once. Without its
    // pin alone it would, some time later.
    link(program, cgroup)?.pin(&aside)?;
    fs::rename(&aside, pin).with_context(|| format!("replacing {}", pin.display()))?;
    sys::detach_link(before.as_fd()).with_context(|| format!("detaching what {} was", pin.display()))
}

/// The hooks that are pinned, whether an agent runs or not.
///
/// # Errors
/// What could not be read.
pub fn attached(root: &PinRoot) -> anyhow::Result<Vec<Attached>> {
    let mut hooks = Vec::new();
    for name in CGROUP_HOOKS {
        let path = root.links().join(name);
        if !path.exists() {
            continue;
        }
        let link = sys::open_pinned(&path).with_context(|| format!("opening {}", path.display()))?;
        let info = sys::link_info(link.as_fd()).with_context(|| format!("reading {}", path.display()))?;
        hooks.push(Attached { hook: name.to_owned(), program: info.program, cgroup: info.cgroup });
    }
    Ok(hooks)
}

/// How many hooks a complete agent has.
#[must_use]
pub fn expected() -> usize {
    CGROUP_HOOKS.len()
}

/// The useful end of a verifier's log.
fn explain(name: &str, error: &ProgramError) -> anyhow::Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!("loading {name}: {error}");
    };
    let log = verifier_log.to_string();
    let said: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = said[said.len().saturating_sub(12)..].join("\n  ");
    anyhow!("the kernel does not accept {name}: {io_error}\n  {end}")
}
