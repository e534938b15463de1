//! Asking the kernel for everything, at the start and where announcements were lost; and for what is at the pods' ends
//! of our veths, through this namespace's numbers for theirs: none of them is entered for that.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{AddressFamily as Family, SockFlag, SockType, socket};

use super::channel::{Answered, Channel};
use super::mirror::{Change, Inside, Mirror, Namespace, Nsid};
use super::netns;
use super::parse::parse;

/// How often a list is asked for again that changed while it was read.
const ATTEMPTS: usize = 16;

/// Who asks.
#[derive(Debug)]
pub(super) struct Query {
    channel: Channel,
}

impl Query {
    /// In the thread's network namespace.
    pub(super) fn open() -> anyhow::Result<Self> {
        let channel = Channel::open(NETLINK_ROUTE)?;
        // Otherwise the kernel lists this namespace's addresses instead of another's.
        channel.be_strict()?;
        Ok(Self { channel })
    }

    /// Devices, addresses and routes of this namespace, in place of what the mirror knew of them.
    pub(super) fn refresh(&self, mirror: &mut Mirror) -> anyhow::Result<()> {
        let mut changes = Vec::new();
        self.dump(|| RouteNetlinkMessage::GetLink(LinkMessage::default()), &mut changes)
            .context("listing devices")?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let addresses = || {
                let mut message = AddressMessage::default();
                message.header.family = family;
                RouteNetlinkMessage::GetAddress(message)
            };
            self.dump(addresses, &mut changes).context("listing addresses")?;
            let routes = || {
                let mut message = RouteMessage::default();
                message.header.address_family = family;
                RouteNetlinkMessage::GetRoute(message)
            };
            self.dump(routes, &mut changes).context("listing routes")?;
        }
        mirror.links.clear();
        mirror.addresses.clear();
        mirror.routes.clear();
        for change in changes {
            mirror.apply(change);
        }
        mirror.is_doubtful = false;
        Ok(())
    }

    /// The pod's end of a veth; `None` where it is gone by now.
    pub(super) fn inside(&self, nsid: Nsid, index: u32) -> anyhow::Result<Option<Inside>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfNetnsId(nsid));
        let mut link = None;
        let asked = self.channel.ask(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST, |answer| {
            link = parse(&answer).into_iter().next();
        });
        if asked.is_err() {
            return Ok(None);
        }
        let Some(Change::Link(link)) = link else { return Ok(None) };
        let addresses = || {
            let mut message = AddressMessage::default();
            message.header.index = index;
            message.attributes.push(AddressAttribute::TargetNetNsId(nsid));
            RouteNetlinkMessage::GetAddress(message)
        };
        let mut changes = Vec::new();
        if self.dump(addresses, &mut changes).is_err() {
            return Ok(None);
        }
        let mut inside = Inside { mac: link.mac, mtu: link.mtu, addresses: Vec::new() };
        for change in changes {
            if let Change::Address(of, address) = change
                && of == index
            {
                inside.addresses.push(address);
            }
        }
        Ok(Some(inside))
    }

    /// Whether somebody may be in a namespace who is no socket there ([`Mirror::forwarding`]); not where it is gone by now.
    pub(super) fn is_forwarding(&self, nsid: Nsid) -> bool {
        let links = || {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfNetnsId(nsid));
            RouteNetlinkMessage::GetLink(message)
        };
        let mut changes = Vec::new();
        let asked = self.dump(links, &mut changes);
        asked.is_ok() && changes.iter().any(|change| matches!(change, Change::Link(link) if link.leads_on()))
    }

    /// Which these namespaces are; those that nobody here has a way into are missing.
    pub(super) fn namespaces(&self, wanted: &HashSet<Nsid>) -> anyhow::Result<HashMap<Nsid, Namespace>> {
        let mut namespaces = HashMap::new();
        for namespace in netns::all().context("looking for network namespaces")? {
            if namespaces.len() == wanted.len() {
                break;
            }
            let mut message = NsidMessage::default();
            message.attributes.push(NsidAttribute::Fd(namespace.as_fd().as_raw_fd().cast_unsigned()));
            let mut found = None;
            let asked = self.channel.ask(RouteNetlinkMessage::GetNsId(message), NLM_F_REQUEST, |answer| {
                found = number(&answer);
            });
            // Gone meanwhile.
            if asked.is_err() {
                continue;
            }
            if let Some(nsid) = found.filter(|nsid| wanted.contains(nsid)) {
                match identify(&namespace) {
                    Ok(found) => {
                        namespaces.insert(nsid, found);
                    }
                    Err(error) => tracing::warn!("a pod's network namespace cannot be named: {error:#}"),
                }
            }
        }
        Ok(namespaces)
    }

    fn dump(
        &self,
        question: impl Fn() -> RouteNetlinkMessage,
        changes: &mut Vec<Change>,
    ) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let answered = self.channel.ask(question(), NLM_F_REQUEST | NLM_F_DUMP, |answer| {
                found.extend(parse(&answer));
            })?;
            if answered == Answered::Whole {
                changes.extend(found);
                return Ok(());
            }
        }
        bail!("it changed each of {ATTEMPTS} times while it was read")
    }
}

fn identify(namespace: &File) -> anyhow::Result<Namespace> {
    let inode = namespace.metadata().context("asking for its inode")?.ino();
    Ok(Namespace { cookie: netns::inside(namespace, cookie_here)?, inode })
}

/// The number of a namespace; `None` while it has none.
fn number(message: &RouteNetlinkMessage) -> Option<Nsid> {
    let RouteNetlinkMessage::NewNsId(message) = message else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(nsid) => Some(*nsid).filter(|nsid| *nsid >= 0),
        _ => None,
    })
}

/// The cookie of the thread's network namespace, as programs see it.
pub(super) fn cookie_here() -> anyhow::Result<u64> {
    let socket = socket(Family::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: both point to variables of the sizes that they tell.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("SO_NETNS_COOKIE (it needs kernel 5.14)");
    }
    Ok(cookie)
}

/// include/uapi/asm-generic/socket.h
const SO_NETNS_COOKIE: libc::c_int = 71;
