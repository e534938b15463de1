//! Programs on devices where the kernel has no TCX links (before 6.6): filters of a clsact queueing discipline, beside
//! whatever filters others have there. They know us by the name and handle of the filter, and are replaced in place.

use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::sys::TcxHook;
use super::tc::{AttachedDevice, Loaded, TC_HOOKS};
use crate::network::channel::Channel;

/// "weir": a handle that nobody else is likely to choose.
const HANDLE: TcHandle = TcHandle { major: 0x7765, minor: 0x6972 };

/// After the filters that people give a low number, before those that the kernel numbers itself (from 49152 down).
const PRIORITY: u32 = 0x2e1;

/// Every kind of packet (`ETH_P_ALL`), in network order.
const ALL: u32 = 0x0003_u16.to_be() as u32;

/// Who asks.
pub(super) struct Clsact {
    channel: Channel,
}

impl Clsact {
    /// In the thread's network namespace.
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self { channel: Channel::open(NETLINK_ROUTE)? })
    }

    /// Attaches the program, or replaces the one that an earlier agent attached.
    pub(super) fn ensure(
        &self,
        device: u32,
        hook: TcxHook,
        name: &str,
        program: &Loaded<'_>,
    ) -> anyhow::Result<()> {
        if self.find(device, hook)?.is_some_and(|(_, id)| id == program.id) {
            return Ok(());
        }
        self.ensure_qdisc(device)?;
        let mut message = filter(device, hook)?;
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.fd.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.into())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.order(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE).context("attaching")
    }

    /// Detaches the filters of ours that are not to be kept.
    pub(super) fn remove_others(&self, keep: impl Fn(&str, u32) -> bool) -> anyhow::Result<()> {
        for AttachedDevice { hook: name, device, .. } in self.attached()? {
            let hook = TC_HOOKS.iter().find(|(known, ..)| *known == name).map(|(_, _, hook)| *hook);
            if let Some(hook) = hook.filter(|_| !keep(&name, device)) {
                let message = RouteNetlinkMessage::DelTrafficFilter(filter(device, hook)?);
                self.order(message, 0).with_context(|| format!("detaching {name} from device {device}"))?;
            }
        }
        Ok(())
    }

    /// The filters of ours on all devices.
    pub(super) fn attached(&self) -> anyhow::Result<Vec<AttachedDevice>> {
        let mut devices = Vec::new();
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let _answered = self.channel.ask(question, NLM_F_REQUEST | NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                devices.push(link.header.index);
            }
        })?;
        let mut attached = Vec::new();
        for device in devices {
            for hook in [TcxHook::Ingress, TcxHook::Egress] {
                if let Some((hook, program)) = self.find(device, hook)? {
                    attached.push(AttachedDevice { hook, device, program });
                }
            }
        }
        Ok(attached)
    }

    /// The filter of ours at this hook: its name and its program's id.
    fn find(&self, device: u32, hook: TcxHook) -> anyhow::Result<Option<(String, u32)>> {
        let mut message = filter(device, hook)?;
        (message.header.handle, message.header.info) = (TcHandle::UNSPEC, 0);
        let question = RouteNetlinkMessage::GetTrafficFilter(message);
        let mut found = None;
        let asked = self.channel.ask(question, NLM_F_REQUEST | NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewTrafficFilter(answer) = answer {
                found = found.take().or_else(|| parse_ours(&answer, device));
            }
        });
        match asked {
            Ok(_) => Ok(found),
            // No such device, or nothing there that could have filters.
            Err(error) if has_code(&error, &[libc::ENODEV, libc::EINVAL, libc::EOPNOTSUPP]) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("listing the filters of device {device}")),
        }
    }

    fn ensure_qdisc(&self, device: u32) -> anyhow::Result<()> {
        let mut message = TcMessage::with_index(device.cast_signed());
        message.header.handle = TcHandle { major: 0xffff, minor: 0 };
        message.header.parent = TcHandle::CLSACT;
        message.attributes.push(TcAttribute::Kind("clsact".into()));
        let made = self.order(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL);
        match made {
            Err(error) if has_code(&error, &[libc::EEXIST]) => self.has_egress(device),
            made => made.context("making a clsact queueing discipline"),
        }
    }

    /// Somebody else's `ingress` has the same place, and would take an egress filter for one of its own.
    fn has_egress(&self, device: u32) -> anyhow::Result<()> {
        let mut kind = None;
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(device.cast_signed()));
        let _answered = self.channel.ask(question, NLM_F_REQUEST | NLM_F_DUMP, |answer| {
            let RouteNetlinkMessage::NewQueueDiscipline(answer) = answer else { return };
            if answer.header.index.cast_unsigned() == device && answer.header.parent == TcHandle::CLSACT {
                kind = answer.attributes.into_iter().find_map(|attribute| match attribute {
                    TcAttribute::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
        })?;
        anyhow::ensure!(
            kind.as_deref() == Some("clsact"),
            "the device has somebody's `ingress` queueing discipline, which has no place for what it sends: \
             replace it with `clsact`, or use a kernel of 6.6 or later"
        );
        Ok(())
    }

    fn order(&self, message: RouteNetlinkMessage, flags: u16) -> anyhow::Result<()> {
        let ignore = |_: RouteNetlinkMessage| {};
        self.channel.ask(message, NLM_F_REQUEST | NLM_F_ACK | flags, ignore).map(|_| ())
    }
}

/// The place of our filter.
fn filter(device: u32, hook: TcxHook) -> anyhow::Result<TcMessage> {
    let mut message = TcMessage::with_index(i32::try_from(device)?);
    message.header.handle = HANDLE;
    // include/uapi/linux/pkt_sched.h: TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS
    let minor = match hook {
        TcxHook::Ingress => 0xfff2,
        TcxHook::Egress => 0xfff3,
    };
    message.header.parent = TcHandle { major: 0xffff, minor };
    message.header.info = PRIORITY << 16 | ALL;
    Ok(message)
}

fn parse_ours(message: &TcMessage, device: u32) -> Option<(String, u32)> {
    if message.header.handle != HANDLE || message.header.index.cast_unsigned() != device {
        return None;
    }
    let (mut name, mut id) = (None, 0);
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(found)) => name = Some(found.clone()),
                TcOption::Bpf(TcFilterBpfOption::ProgId(found)) => id = *found,
                _ => {}
            }
        }
    }
    let name = name.filter(|name| TC_HOOKS.iter().any(|(known, ..)| known == name))?;
    Some((name, id))
}

fn has_code(error: &anyhow::Error, codes: &[i32]) -> bool {
    let code = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    code.is_some_and(|code| codes.contains(&code))
}
