//! Flows that are translated per packet: conntrack and NAT in one table.
//!
//! On its way through the node a flow has up to three forms. The table has a row for each, under the form's canonical
//! tuple, and each row holds all of them: whichever form a packet has, one look-up says what it becomes.
//!
//! | form | client's end | server's end | seen |
//! | --- | --- | --- | --- |
//! | [`Form::Dialled`] | client | what it dialled | by the client |
//! | [`Form::Forwarded`] | client's address, source's port | backend | between our hooks, where the stack forwards |
//! | [`Form::Received`] | source | backend | by the backend |
//!
//! `source` has the client's address, or one of this node where replies would otherwise not come back here. Where it has
//! the client's, the last two forms are the same, and so are their rows. Its port is one of a range of ours, so that a
//! client may reach one backend through several Services, and directly, from one port of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, HopRow, Peer, Port, Protocol, ServiceId};

/// Key of the `flows` table: both ends of a flow in a fixed order, so that both directions have one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tuple {
    pub(super) low_addr: Addr,
    pub(super) high_addr: Addr,
    pub(super) low_port: Port,
    pub(super) high_port: Port,
    pub(super) protocol: u32,
}

impl Tuple {
    /// The canonical tuple of a packet from `a` to `b`, or back; and whether `a` is its lower end.
    #[inline(always)]
    #[must_use]
    pub fn new(a: Peer, b: Peer, protocol: Protocol) -> (Self, bool) {
        let a_is_low = a.order(&b).is_le();
        let (low, high) = if a_is_low { (a, b) } else { (b, a) };
        let tuple = Self {
            low_addr: low.addr,
            high_addr: high.addr,
            low_port: low.port,
            high_port: high.port,
            protocol: protocol as u32,
        };
        (tuple, a_is_low)
    }

    /// The two ends, in the order of the key.
    #[must_use]
    pub const fn ends(&self) -> (Peer, Peer) {
        (
            Peer { addr: self.low_addr, port: self.low_port },
            Peer { addr: self.high_addr, port: self.high_port },
        )
    }

    /// The protocol.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }
}

/// Which of a flow's forms a row stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Form {
    /// As the client sees the flow.
    Dialled = 0,
    /// As the stack and netfilter of this node see it, where that is neither of the others.
    Forwarded = 1,
    /// As the backend sees it.
    Received = 2,
}

/// How a flow's packets go on after translation; chosen when the flow begins, kept for both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Path {
    /// Through the stack, with its netfilter: destination first, source at the last hook; the reply likewise.
    Stack = 0,
    /// Past the stack, from one device to another: both at once, at the first hook.
    Redirect = 1,
}

/// What was seen of a TCP connection in one direction: a set of the constants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Signs(pub u8);

impl Signs {
    /// A packet at all.
    pub const SEEN: Self = Self(1);
    /// FIN
    pub const FIN: Self = Self(2);
    /// RST
    pub const RST: Self = Self(4);
    /// An acknowledgment, but for that which answers a SYN: of who opened a connection it says that he heard the answer.
    pub const ACK: Self = Self(8);

    /// Whether it has all of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without [`Signs::RST`] if the direction goes on: a reset that its own sender does not keep to was not its own, or
    /// was out of the window (RFC 5961).
    #[inline(always)]
    #[must_use]
    pub const fn unless_continued(self, goes_on: bool) -> Self {
        if goes_on { Self(self.0 & !Self::RST.0) } else { self }
    }

    /// Both together.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Row of the `flows` table.
///
/// The four addresses, their ports, the service and the path are the same in all rows of a flow and never change.
/// `seen_s`, `signs` and `hop` are of one direction, so that the hooks of two directions never write to one row: the client's
/// in the [`Form::Dialled`] row, the backend's in the [`Form::Received`] row; [`Form::Forwarded`] rows have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    pub(super) client_addr: Addr,
    pub(super) dialled_addr: Addr,
    pub(super) source_addr: Addr,
    pub(super) backend_addr: Addr,
    pub(super) client_port: Port,
    pub(super) dialled_port: Port,
    pub(super) source_port: Port,
    pub(super) backend_port: Port,
    /// The Service port whose backend it is.
    pub service: ServiceId,
    /// When the flow began: seconds since boot, as [`crate::datapath::Moment::seconds`] counts.
    pub begun_s: u32,
    /// When a packet of this row's direction was last seen, to the second; 0: none was.
    pub seen_s: u32,
    /// What was seen in this row's direction.
    pub signs: Signs,
    pub(super) form: u8,
    pub(super) client_is_low: u8,
    pub(super) path: u8,
    /// How packets of this row's direction leave the node.
    pub hop: HopRow,
}

/// An end of a flow; the value is its bit in `path`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum End {
    /// The client.
    Client = 2,
    /// The backend.
    Backend = 4,
}

impl Flow {
    /// The bit in `path` of [`Path::Redirect`].
    const REDIRECT: u8 = Path::Redirect as u8;

    /// The two ends of a form: the client's and the server's.
    #[inline(always)]
    #[must_use]
    pub const fn ends(&self, form: Form) -> (Peer, Peer) {
        match form {
            Form::Dialled => (self.client(), self.dialled()),
            Form::Forwarded => (Peer { addr: self.client_addr, port: self.source_port }, self.backend()),
            Form::Received => (self.source(), self.backend()),
        }
    }

    /// A flow that begins now; [`Flow::set_form`] says which row it is.
    #[inline(always)]
    #[must_use]
    pub const fn new(client: Peer, dialled: Peer, backend: Peer, service: ServiceId, begun_s: u32) -> Self {
        Self {
            client_addr: client.addr,
            dialled_addr: dialled.addr,
            source_addr: client.addr,
            backend_addr: backend.addr,
            client_port: client.port,
            dialled_port: dialled.port,
            source_port: client.port,
            backend_port: backend.port,
            service,
            begun_s,
            seen_s: 0,
            signs: Signs(0),
            form: 0,
            client_is_low: 0,
            path: 0,
            hop: HopRow::from_words([0; 4]),
        }
    }

    /// Makes this the row of that form, and gives its key.
    #[inline(always)]
    pub fn set_form(&mut self, form: Form, protocol: Protocol) -> Tuple {
        let (client, server) = self.ends(form);
        let (tuple, client_is_low) = Tuple::new(client, server, protocol);
        self.form = form as u8;
        self.client_is_low = client_is_low as u8;
        tuple
    }

    /// The client.
    #[inline(always)]
    #[must_use]
    pub const fn client(&self) -> Peer {
        Peer { addr: self.client_addr, port: self.client_port }
    }

    /// What it dialled.
    #[inline(always)]
    #[must_use]
    pub const fn dialled(&self) -> Peer {
        Peer { addr: self.dialled_addr, port: self.dialled_port }
    }

    /// Who the backend takes for its client.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Peer {
        Peer { addr: self.source_addr, port: self.source_port }
    }

    /// Replaces what the backend takes for its client.
    #[inline(always)]
    pub const fn set_source(&mut self, source: Peer) {
        self.source_addr = source.addr;
        self.source_port = source.port;
    }

    /// The backend.
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> Peer {
        Peer { addr: self.backend_addr, port: self.backend_port }
    }

    /// Whether the backend takes this node for its client.
    #[inline(always)]
    #[must_use]
    pub fn hides_client(&self) -> bool {
        self.source_addr != self.client_addr
    }

    /// The form that this row stands for.
    #[inline(always)]
    #[must_use]
    pub const fn form(&self) -> Form {
        match self.form {
            0 => Form::Dialled,
            1 => Form::Forwarded,
            _ => Form::Received,
        }
    }

    /// Whether a packet whose source is the lower end of the key goes from the client to the backend.
    #[inline(always)]
    #[must_use]
    pub const fn is_forward(&self, source_is_low: bool) -> bool {
        (self.client_is_low != 0) == source_is_low
    }

    /// How its packets go on.
    #[inline(always)]
    #[must_use]
    pub const fn path(&self) -> Path {
        if self.path & Self::REDIRECT != 0 { Path::Redirect } else { Path::Stack }
    }

    /// Chooses how its packets go on.
    #[inline(always)]
    pub const fn set_path(&mut self, path: Path) {
        self.path = (self.path & !Self::REDIRECT) | path as u8;
    }

    /// Says that an end of it is a pod of this node.
    #[inline(always)]
    pub const fn set_local(&mut self, end: End) {
        self.path |= end as u8;
    }

    /// Whether that end was a pod of this node when the flow began.
    #[inline(always)]
    #[must_use]
    pub const fn is_local(&self, end: End) -> bool {
        self.path & end as u8 != 0
    }
}

/// Key of the `fragments` table: a datagram in pieces (RFC 791, RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    pub(super) src: Addr,
    pub(super) dst: Addr,
    pub(super) id: u32,
    pub(super) protocol: u32,
}

impl FragmentKey {
    /// `id` is the identification as it stands in the packet, 16 bits in IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn new(src: Addr, dst: Addr, id: u32, protocol: Protocol) -> Self {
        Self { src, dst, id, protocol: protocol as u32 }
    }
}

/// Row of the `fragments` table: the ports, which only the first piece has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentRow {
    /// The sender's port.
    pub src: Port,
    /// The receiver's port.
    pub dst: Port,
    /// When the first piece was seen: seconds since boot.
    pub seen_s: u32,
}
