//! The vocabulary of the table: plain data, and short functions that make it.

use crate::prober::How;

/// What must hold, and why.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, in words joined by hyphens.
    pub name: &'static str,
    /// The rule, with where it is written if it is not Weir's own.
    pub rule: &'static str,
    /// The ways to use a socket for which it must hold.
    pub ways: &'static [How],
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// From now on these are all the Services of the cluster.
    Cluster(Vec<ServiceSpec>),
    /// A client does something.
    Ask(Ask),
}

/// What a client does and what it must see.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The place that it is in: a pod, or a node.
    pub from: &'static str,
    /// What it dials.
    pub to: Target,
    /// On what socket.
    pub on: On,
    /// How often.
    pub times: u32,
    /// What it must see.
    pub expect: Expect,
}

/// What a client dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A port of a Service's ClusterIP.
    Service(&'static str, u16),
    /// A port of a place's own address.
    Place(&'static str, u16),
}

/// On what socket a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    /// A new one each time.
    New,
    /// One that stays open, by name.
    Kept(&'static str),
}

/// What a client must see. Wherever somebody answers, `getpeername` and `recvfrom` show the address that was
/// dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Answers from these, from each at least once.
    Every(&'static [&'static str]),
    /// Answers from one of these, always the same.
    One(&'static [&'static str]),
    /// Answers from the first over IPv4, from the second over IPv6.
    PerFamily(&'static str, &'static str),
    /// `ECONNREFUSED` from the call that names the destination.
    Refused,
    /// `EHOSTUNREACH` from the call that names the destination.
    Unreachable,
    /// It is not translated: the network gets it as it was dialled.
    Untouched,
}

/// A Service and its endpoints.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// `metadata.name`
    pub name: &'static str,
    /// Name, port and the endpoints' port; each for every protocol of `protocols`.
    pub ports: Vec<(&'static str, u16, u16)>,
    /// `TCP`, `UDP`
    pub protocols: &'static [&'static str],
    /// A label that says whose the Service is, if not ours.
    pub foreign_label: Option<&'static str>,
    /// `internalTrafficPolicy: Local`
    pub local: bool,
    /// `trafficDistribution`
    pub distribution: Option<&'static str>,
    /// `sessionAffinity: ClientIP` with this timeout in seconds.
    pub affinity_s: Option<u32>,
    /// One EndpointSlice of each family for each of these.
    pub slices: Vec<Vec<Endpoint>>,
}

/// An endpoint in a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The place whose address it is.
    pub place: &'static str,
    /// `conditions.ready`
    pub ready: bool,
    /// `conditions.serving`
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// `hints.forNodes`
    pub for_node: Option<&'static str>,
    /// Only in the slice of this family: 4 or 6.
    pub only: Option<u8>,
}

/// A case.
#[must_use]
pub fn case(
    name: &'static str,
    rule: &'static str,
    ways: &'static [How],
    steps: impl Into<Vec<Step>>,
) -> Case {
    Case { name, rule, ways, steps: steps.into() }
}

/// From now on these are all the Services of the cluster.
#[must_use]
pub fn cluster(services: impl Into<Vec<ServiceSpec>>) -> Step {
    Step::Cluster(services.into())
}

/// A Service with port 80, to the endpoints' port 8080, TCP and UDP, without endpoints.
#[must_use]
pub fn service(name: &'static str) -> ServiceSpec {
    ServiceSpec {
        name,
        ports: vec![("main", 80, 8080)],
        protocols: &["TCP", "UDP"],
        foreign_label: None,
        local: false,
        distribution: None,
        affinity_s: None,
        slices: Vec::new(),
    }
}

impl ServiceSpec {
    /// With a slice of ready endpoints.
    #[must_use]
    pub fn to(self, places: &[&'static str]) -> Self {
        let endpoints: Vec<_> = places.iter().map(|place| ready(place)).collect();
        self.slice(endpoints)
    }

    /// With one more slice.
    #[must_use]
    pub fn slice(mut self, endpoints: impl Into<Vec<Endpoint>>) -> Self {
        self.slices.push(endpoints.into());
        self
    }

    /// With one more port.
    #[must_use]
    pub fn port(mut self, name: &'static str, port: u16, target: u16) -> Self {
        self.ports.push((name, port, target));
        self
    }

    /// For these protocols only.
    #[must_use]
    pub fn only(mut self, protocols: &'static [&'static str]) -> Self {
        self.protocols = protocols;
        self
    }

    /// internalTrafficPolicy Local.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// sessionAffinity ClientIP with the API's default timeout.
    #[must_use]
    pub fn affinity(mut self) -> Self {
        self.affinity_s = Some(10_800);
        self
    }

    /// With this trafficDistribution.
    #[must_use]
    pub fn distribution(mut self, distribution: &'static str) -> Self {
        self.distribution = Some(distribution);
        self
    }

    /// With a label that says it is not ours; it gets a ClusterIP that the router answers.
    #[must_use]
    pub fn foreign(mut self, label: &'static str) -> Self {
        self.foreign_label = Some(label);
        self
    }
}

/// A ready endpoint.
#[must_use]
pub fn ready(place: &'static str) -> Endpoint {
    Endpoint { place, ready: true, serving: true, terminating: false, for_node: None, only: None }
}

/// An endpoint that fails its readiness probe.
#[must_use]
pub fn not_ready(place: &'static str) -> Endpoint {
    Endpoint { ready: false, serving: false, ..ready(place) }
}

/// An endpoint that is being deleted and still serves.
#[must_use]
pub fn terminating(place: &'static str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..ready(place) }
}

impl Endpoint {
    /// With a hint for this node.
    #[must_use]
    pub fn for_node(self, node: &'static str) -> Self {
        Self { for_node: Some(node), ..self }
    }

    /// In the slice of this family only: 4 or 6.
    #[must_use]
    pub fn only(self, family: u8) -> Self {
        Self { only: Some(family), ..self }
    }

    /// It no longer serves.
    #[must_use]
    pub fn not_serving(self) -> Self {
        Self { serving: false, ..self }
    }
}

/// How often a client asks where chance is at work: with three backends one is missed once in 10^15 runs.
const OFTEN: u32 = 90;

/// A client to be told what it does: see [`Asker`].
#[must_use]
pub fn from(place: &'static str) -> Asker {
    Asker { from: place, to: Target::Place(place, 0), on: On::New, times: 1 }
}

/// A client on its way to an [`Ask`].
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    from: &'static str,
    to: Target,
    on: On,
    times: u32,
}

impl Asker {
    /// Dials a Service's port.
    #[must_use]
    pub fn asks(self, service: &'static str, port: u16) -> Self {
        Self { to: Target::Service(service, port), ..self }
    }

    /// Dials a place's own address.
    #[must_use]
    pub fn asks_place(self, place: &'static str, port: u16) -> Self {
        Self { to: Target::Place(place, port), ..self }
    }

    /// Many times over.
    #[must_use]
    pub fn often(self) -> Self {
        Self { times: OFTEN, ..self }
    }

    /// On the socket of that name, which stays open.
    #[must_use]
    pub fn on(self, socket: &'static str) -> Self {
        Self { on: On::Kept(socket), ..self }
    }

    /// One of these answers, always the same.
    pub fn reaches(self, place: &'static [&'static str]) -> Step {
        self.expect(Expect::One(place))
    }

    /// Asks often, and each of these answers.
    pub fn reaches_every(self, places: &'static [&'static str]) -> Step {
        self.often().expect(Expect::Every(places))
    }

    /// And must see this.
    pub fn expect(self, expect: Expect) -> Step {
        let Self { from, to, on, times } = self;
        Step::Ask(Ask { from, to, on, times, expect })
    }
}
