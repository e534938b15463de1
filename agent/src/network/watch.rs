//! The thread that listens to the kernel, and tells what it comes to.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::classify::{classify, pod_ends};
use super::facts::{Facts, Seeks};
use super::listener::{Heard, Listener};
use super::mirror::{Mirror, Nsid};
use super::options::Options;
use super::query::{Query, cookie_here};
use super::search::Search;

/// The network as it is, and as it changes. Ends its thread when dropped.
#[derive(Debug)]
pub struct Watch {
    facts: watch::Receiver<Facts>,
    /// A byte is what to seek; its end is the thread's.
    orders: OwnedFd,
}

impl Watch {
    /// Looks at the network namespace of the calling thread once, and goes on listening on a thread of its own.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let mut watcher = Watcher::open(options)?;
        // An agent before this one knew them; the first who is told may know that there are none.
        watcher.search.seek(Seeks { elsewhere: true, making: false }, Instant::now());
        watcher.mirror.is_doubtful = true;
        let first = watcher.settle()?;
        let (sender, facts) = watch::channel(first);
        let (inbox, orders) =
            nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).context("making a pipe")?;
        std::thread::Builder::new()
            .name("network".into())
            .spawn(move || {
                if let Err(error) = watcher.run(&sender, &inbox) {
                    tracing::error!("listening to this node's network: {error:#}");
                }
                // The receiver hears that nobody is left to tell.
            })
            .context("starting a thread")?;
        Ok(Self { facts, orders })
    }

    /// What is known now.
    #[must_use]
    pub fn now(&mut self) -> Facts {
        self.facts.borrow_and_update().clone()
    }

    /// Says what else is to be looked for from now on.
    pub fn seek(&self, seeks: Seeks) {
        // Full only if the thread has ended, or will read many others.
        let _told = nix::unistd::write(&self.orders, &[order_of(seeks)]);
    }

    /// Returns when something is different from what [`Watch::now`] said last.
    ///
    /// # Errors
    /// The thread has ended, which it logged.
    pub async fn changed(&mut self) -> anyhow::Result<()> {
        self.facts.changed().await.context("nobody listens to this node's network any more")
    }
}

/// The cookie of the calling thread's network namespace.
///
/// # Errors
/// The kernel's.
pub fn own_netns() -> anyhow::Result<u64> {
    cookie_here()
}

fn order_of(seeks: Seeks) -> u8 {
    u8::from(seeks.elsewhere) | u8::from(seeks.making) << 1
}

fn parse_order(order: u8) -> Seeks {
    Seeks { elsewhere: order & 1 != 0, making: order & 2 != 0 }
}

struct Watcher {
    options: Options,
    listener: Listener,
    query: Query,
    mirror: Mirror,
    search: Search,
    host_netns: u64,
}

impl Watcher {
    fn open(options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            options,
            // First: what changes while the rest is asked for is heard afterwards, and in order.
            listener: Listener::open()?,
            query: Query::open()?,
            mirror: Mirror::default(),
            search: Search::default(),
            host_netns: cookie_here()?,
        })
    }

    fn run(&mut self, sender: &watch::Sender<Facts>, inbox: &OwnedFd) -> anyhow::Result<()> {
        loop {
            let mut waiting = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(inbox.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, self.timeout()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting"),
            }
            if waiting[1].any() == Some(true) && !self.obey(inbox)? {
                return Ok(());
            }
            // What waits together is judged together.
            while self.hear()? {}
            let facts = self.settle()?;
            sender.send_if_modified(|known| {
                let is_new = *known != facts;
                *known = facts;
                is_new
            });
        }
    }

    /// Until the next look through the processes, if there is to be one.
    fn timeout(&self) -> PollTimeout {
        let Some(due) = self.search.due() else { return PollTimeout::NONE };
        // Rounded up: a wait that ends too early would be another.
        let wait = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    /// `false`: nobody is left to give orders.
    fn obey(&mut self, inbox: &OwnedFd) -> anyhow::Result<bool> {
        let mut orders = [0; 64];
        loop {
            match nix::unistd::read(inbox, &mut orders) {
                Ok(0) => return Ok(false),
                Ok(count) => self.search.seek(parse_order(orders[count - 1]), Instant::now()),
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("reading orders"),
            }
        }
    }

    /// `false`: there is nothing more for now.
    fn hear(&mut self) -> anyhow::Result<bool> {
        match self.listener.hear()? {
            Heard::Changes(None, changes) => {
                changes.into_iter().for_each(|change| self.mirror.apply(change));
            }
            Heard::Changes(Some(nsid), changes) => {
                changes.into_iter().for_each(|change| self.mirror.apply_inside(nsid, change));
            }
            Heard::Lost => {
                tracing::info!("announcements of the kernel were lost: looking at the whole network again");
                self.mirror.is_doubtful = true;
                self.mirror.inside.clear();
                self.mirror.namespaces.clear();
            }
            Heard::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Asks for what the mirror lacks, and judges.
    fn settle(&mut self) -> anyhow::Result<Facts> {
        if self.mirror.is_doubtful {
            self.query.refresh(&mut self.mirror)?;
        }
        let ends = pod_ends(&self.mirror, &self.options);
        for &(nsid, index) in ends.values() {
            if !self.mirror.inside.contains_key(&(nsid, index))
                && let Some(inside) = self.query.inside(nsid, index)?
            {
                self.mirror.inside.insert((nsid, index), inside);
                if self.query.is_forwarding(nsid) {
                    self.mirror.forwarding.insert(nsid);
                }
            }
        }
        let unknown: HashSet<Nsid> = ends
            .values()
            .map(|(nsid, _)| *nsid)
            .filter(|nsid| !self.mirror.namespaces.contains_key(nsid))
            .collect();
        let found = if unknown.is_empty() { HashMap::new() } else { self.query.namespaces(&unknown)? };
        self.mirror.namespaces.extend(&found);
        let behind: HashSet<Nsid> = ends.values().map(|(nsid, _)| *nsid).collect();
        self.mirror.namespaces.retain(|nsid, _| behind.contains(nsid));
        self.mirror.forwarding.retain(|nsid| behind.contains(nsid));
        let now = Instant::now();
        self.search.set_namespaces(&self.mirror.namespaces, found.len() < unknown.len(), now);
        let mut facts = classify(&self.mirror, &self.options, self.host_netns);
        let addresses = |cookie: u64| {
            let inside = facts.pods.iter().filter(|(_, pod)| pod.netns == Some(cookie));
            inside.flat_map(|(index, pod)| pod.addresses.iter().map(|ip| (*index, *ip))).collect()
        };
        self.search.look(now, addresses).context("looking through the processes")?;
        self.search.annotate(&mut facts);
        Ok(facts)
    }
}
