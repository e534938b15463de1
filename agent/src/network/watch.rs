//! The thread that listens to the kernel, and tells what it comes to.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::classify::{classify, pod_ends};
use super::facts::Facts;
use super::listener::{Heard, Listener};
use super::mirror::{Mirror, Nsid};
use super::options::Options;
use super::query::{Query, cookie_here};

/// The network as it is, and as it changes. Ends its thread when dropped.
#[derive(Debug)]
pub struct Watch {
    facts: watch::Receiver<Facts>,
    _alive: OwnedFd,
}

impl Watch {
    /// Looks at the network namespace of the calling thread once, and goes on listening on a thread of its own.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let mut watcher = Watcher::open(options)?;
        watcher.mirror.is_doubtful = true;
        let first = watcher.settle()?;
        let (sender, facts) = watch::channel(first);
        let (end, alive) = nix::unistd::pipe().context("making a pipe")?;
        std::thread::Builder::new()
            .name("network".into())
            .spawn(move || {
                if let Err(error) = watcher.run(&sender, &end) {
                    tracing::error!("listening to this node's network: {error:#}");
                }
                // The receiver hears that nobody is left to tell.
            })
            .context("starting a thread")?;
        Ok(Self { facts, _alive: alive })
    }

    /// What is known now.
    #[must_use]
    pub fn now(&mut self) -> Facts {
        self.facts.borrow_and_update().clone()
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

struct Watcher {
    options: Options,
    listener: Listener,
    query: Query,
    mirror: Mirror,
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
            host_netns: cookie_here()?,
        })
    }

    fn run(&mut self, sender: &watch::Sender<Facts>, end: &OwnedFd) -> anyhow::Result<()> {
        loop {
            let mut waiting = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(end.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting"),
            }
            if waiting[1].any() == Some(true) {
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
                self.mirror.cookies.clear();
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
            }
        }
        let unknown: HashSet<Nsid> = ends
            .values()
            .map(|(nsid, _)| *nsid)
            .filter(|nsid| !self.mirror.cookies.contains_key(nsid))
            .collect();
        if !unknown.is_empty() {
            let cookies = self.query.cookies(&unknown)?;
            self.mirror.cookies.extend(cookies);
        }
        Ok(classify(&self.mirror, &self.options, self.host_netns))
    }
}
