//! `--source kubernetes`: lists and watches at an API server Services, EndpointSlices, this node's Node and pods,
//! NetworkPolicies, ClusterNetworkPolicies where it has them, and of namespaces and other nodes' pods what policies ask for.
//!
//! - Each watch ([`scope`]) has a loop of its own ([`sync`]): list, watch, resume; they share one way to the server
//!   ([`link`]). Which loops run is decided in one place ([`watches`]).
//! - A list streams where the server can (KEP-3157), and comes in pages where it cannot. What a list no longer
//!   mentions is removed at its end, not before: until then what was known stays in force.
//! - While no server can be reached, everything known stays in force, and one line says what is wrong.
//! - An API server that lost its data, or belongs to another cluster, is not believed: the nodes keep serving what
//!   their pods still are. (See [`link`]; kube-proxy would take all Services away.)
//! - What is wrong with an object is told as a Kubernetes Event, too ([`events`]).
//! - Objects are decoded one by one into our own model ([`decode`]); no copy of the API's objects is kept, only
//!   their keys ([`known`]).

mod access;
mod backoff;
mod body;
mod decode;
mod events;
mod fault;
mod fields;
mod kind;
mod known;
mod link;
mod memory;
mod scope;
mod session;
mod standing;
mod sync;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use self::access::Access;
pub use self::access::KubernetesOptions;
use self::events::Events;
pub use self::events::{Announcer, Reason};
use self::link::Link;
use self::watches::Watches;
use super::{Event, Health, PolicyDemand};

/// A cluster's API server.
#[derive(Debug)]
pub struct Kubernetes {
    node: Arc<str>,
    link: Arc<Link>,
    health: Health,
    /// See [`Watches::new`].
    waits: [Duration; 2],
    told: Events,
    announcer: Announcer,
}

impl Kubernetes {
    /// Finds the credentials. No server is asked yet.
    ///
    /// # Errors
    /// There are no credentials, or what was given for them cannot be used.
    pub fn open(options: KubernetesOptions) -> anyhow::Result<Self> {
        // The one that is linked; where tests bring another, too, it would be ambiguous. It fails if it is set already.
        let _set = rustls::crypto::ring::default_provider().install_default();
        let node: Arc<str> = options.node_name.as_str().into();
        let (state_dir, waits) = (options.state_dir.clone(), [options.linger, options.rediscover]);
        let health = Health::default();
        let link = Arc::new(Link::new(Access::find(options)?, state_dir, health.clone()));
        let (told, announcer) = Events::new(node.clone(), link.clone(), health.clone());
        Ok(Self { node, link, health, waits, told, announcer })
    }

    /// How the connection stands, now and later.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Where problems of objects are handed over, to be told as Kubernetes Events.
    #[must_use]
    pub fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// Sends every object, then [`Event::Synced`], then changes, until the receiver is closed. Of namespaces and other
    /// nodes' pods only what `demand` asks for. Whatever is wrong with the server or the way to it is said, and tried
    /// again.
    pub async fn run(self, events: Sender<Event>, demand: watch::Receiver<PolicyDemand>) {
        let Self { node, link, waits, mut told, .. } = self;
        let watches = Watches::new(node, link, events, waits).follow(demand);
        tokio::pin!(watches);
        tokio::select! {
            () = &mut watches => return,
            // There is nobody who announces.
            () = told.sync() => {}
        }
        watches.await;
    }
}
