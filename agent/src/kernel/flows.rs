//! Forgetting flows: those of which nothing was seen for their lifetime, and those whose backend is gone. The programs
//! never evict one; `daemon` calls this, off the path of events.
//!
//! A flow has up to three rows (`weir_ebpf::abi::Flow`). Its client's row goes first: while it is there its packets are
//! translated, and the tuple that they get must not be another flow's yet. Each row says everything, so an answer that is
//! on its way is translated without it.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use nix::time::{ClockId, clock_gettime};
use weir_ebpf::abi::{Flow, Form, Peer, Protocol, ServiceId, Signs, Tuple};
use weir_ebpf::datapath::lifetime::{lifetime_in_need_s, lifetime_s};

use super::batch;
use super::generation::Generation;
use super::row::Row;
use super::sys;

/// No flow is forgotten sooner, whatever was seen of it; only then is its other row asked for.
const SHORTEST_S: u32 = lifetime_s(Protocol::Tcp, Signs::RST, Signs::RST, 0);

/// A backend's row without its client's is the rest of a flow that was forgotten or could not be begun. It may serve answers
/// on their way, and cannot be told from one that begins just now, so it is left alone for so long after its last packet.
const ORPHAN_S: u32 = 60;

/// `BPF_NOEXIST`: only where there is no such row.
const NOEXIST: u64 = 1;

/// The backend of a flow, and whose it is.
pub type FlowBackend = (ServiceId, Peer, Protocol);

/// What [`sweep_flows`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Rows in the table.
    pub rows: usize,
    /// Whether it is nearly full.
    pub in_need: bool,
    /// Flows that were forgotten.
    pub flows: usize,
    /// How long ago the oldest flow began, in seconds.
    pub oldest_s: u32,
}

/// Forgets the flows whose lifetime is over. `before` is what was found the last time: while the table is nearly full,
/// what nobody answered is forgotten sooner.
///
/// # Errors
/// The kernel's.
pub fn sweep_flows(generation: &Generation, before: Swept) -> anyhow::Result<Swept> {
    let mut table = FlowTable::open(generation)?;
    table.in_need = before.in_need;
    let now_s = seconds()?;
    let mut swept = Swept::default();
    let mut over = Vec::new();
    table.each(|tuple, flow| {
        swept.rows += 1;
        if flow.form() == Form::Dialled {
            swept.oldest_s = swept.oldest_s.max(now_s.saturating_sub(flow.begun_s));
        }
        if table.is_over(&tuple, &flow, now_s) {
            over.push((tuple, flow));
        }
    })?;
    for (tuple, flow) in over {
        // Once more: a packet may have come since.
        let current = table.get(&tuple);
        if current.is_some_and(|current| is_same(&current, &flow) && table.is_over(&tuple, &current, now_s)) {
            table.remove(&tuple, &flow)?;
            swept.flows += usize::from(flow.form() == Form::Dialled);
        }
    }
    swept.in_need = swept.rows - swept.flows > table.capacity()? / 4 * 3;
    Ok(swept)
}

/// Every backend that some client's packets go to, each once.
///
/// # Errors
/// The kernel's.
pub fn flow_backends(generation: &Generation) -> anyhow::Result<HashSet<FlowBackend>> {
    let mut backends = HashSet::new();
    FlowTable::open(generation)?.each(|tuple, flow| {
        backends.extend(backend_of(&tuple, &flow));
    })?;
    Ok(backends)
}

/// A flow, by its client's row.
pub type FlowRow = (Tuple, Flow);

/// Every flow with one of these backends, as it is now.
///
/// # Errors
/// The kernel's.
pub fn flows_to(generation: &Generation, backends: &HashSet<FlowBackend>) -> anyhow::Result<Vec<FlowRow>> {
    let mut found = Vec::new();
    if backends.is_empty() {
        return Ok(found);
    }
    FlowTable::open(generation)?.each(|tuple, flow| {
        if backend_of(&tuple, &flow).is_some_and(|backend| backends.contains(&backend)) {
            found.push((tuple, flow));
        }
    })?;
    Ok(found)
}

/// The backend that a client's packets go to, by the client's row of the flow; other rows say of none.
#[must_use]
pub fn backend_of(tuple: &Tuple, flow: &Flow) -> Option<FlowBackend> {
    let protocol = tuple.protocol().filter(|_| flow.form() == Form::Dialled)?;
    Some((flow.service, flow.backend(), protocol))
}

/// Forgets these flows, and none that has begun in the place of one. The next datagram of such a client begins another; an
/// answer to the last one still finds its way.
///
/// # Errors
/// The kernel's.
pub fn remove_flows(generation: &Generation, flows: &[FlowRow]) -> anyhow::Result<()> {
    if flows.is_empty() {
        return Ok(());
    }
    let table = FlowTable::open(generation)?;
    for (tuple, flow) in flows {
        // Both ends of a connection are to be told by the stack that it is over.
        if tuple.protocol() == Some(Protocol::Udp) {
            table.remove_row(tuple, flow)?;
        } else {
            table.remove(tuple, flow)?;
        }
    }
    Ok(())
}

/// Begins a flow as the programs do, with these rows: the direction of each, when it was last seen, and what was seen.
///
/// # Errors
/// The kernel's.
#[cfg(feature = "testing")]
pub fn insert_flow(
    generation: &Generation,
    protocol: Protocol,
    flow: &Flow,
    rows: &[(Form, u32, Signs)],
) -> anyhow::Result<()> {
    let mut table = FlowTable::open(generation)?;
    for &(form, seen_s, signs) in rows {
        let mut row = *flow;
        let tuple = row.set_form(form, protocol);
        (row.seen_s, row.signs) = (seen_s, signs);
        table.map.insert(Row(tuple), Row(row), NOEXIST)?;
    }
    Ok(())
}

/// The forms of this flow that are in the table.
///
/// # Errors
/// The kernel's.
#[cfg(feature = "testing")]
pub fn flow_forms(generation: &Generation, protocol: Protocol, flow: &Flow) -> anyhow::Result<Vec<Form>> {
    let table = FlowTable::open(generation)?;
    let forms = [Form::Dialled, Form::Forwarded, Form::Received];
    Ok(forms.into_iter().filter(|form| table.other(flow, *form, protocol).is_some()).collect())
}

/// The table, open.
struct FlowTable {
    map: HashMap<MapData, Row<Tuple>, Row<Flow>>,
    data: MapData,
    in_need: bool,
}

impl FlowTable {
    fn open(generation: &Generation) -> anyhow::Result<Self> {
        let (map, data) = (generation.open("FLOWS")?, generation.open("FLOWS")?);
        Ok(Self { map: Map::HashMap(map).try_into()?, data, in_need: false })
    }

    /// For how many rows there is room.
    fn capacity(&self) -> anyhow::Result<usize> {
        Ok(self.data.info()?.max_entries().try_into()?)
    }

    fn each(&self, mut each: impl FnMut(Tuple, Flow)) -> anyhow::Result<()> {
        batch::read_each(self.data.fd().as_fd(), |rows| rows.for_each(|(tuple, flow)| each(tuple, flow)))
            .context("reading the flows table")
    }

    fn get(&self, tuple: &Tuple) -> Option<Flow> {
        self.map.get(&Row(*tuple), 0).ok().map(|row| row.0)
    }

    /// The row of another form of the same flow.
    fn other(&self, flow: &Flow, form: Form, protocol: Protocol) -> Option<Flow> {
        let mut other = *flow;
        let tuple = other.set_form(form, protocol);
        self.get(&tuple).filter(|found| is_same(found, flow) && found.form() == form)
    }

    /// Whether a flow may go, judged at the client's row; or whether a row is the rest of one that never was.
    fn is_over(&self, tuple: &Tuple, flow: &Flow, now_s: u32) -> bool {
        let Some(protocol) = tuple.protocol() else { return true };
        let seen_s = flow.seen_s.max(flow.begun_s);
        let idle_s = now_s.saturating_sub(seen_s);
        let lacks = |form| self.other(flow, form, protocol).is_none();
        match flow.form() {
            Form::Dialled => {}
            Form::Received => return idle_s >= ORPHAN_S && lacks(Form::Dialled),
            // What is seen of the backend stands in its own row.
            Form::Forwarded => {
                return idle_s >= ORPHAN_S && lacks(Form::Dialled) && lacks(Form::Received);
            }
        }
        if idle_s < SHORTEST_S {
            return false;
        }
        let Some(backend) = self.other(flow, Form::Received, protocol) else { return true };
        let last_s = seen_s.max(backend.seen_s);
        let lasted_s = last_s.saturating_sub(flow.begun_s);
        let lifetime_s = if self.in_need { lifetime_in_need_s } else { lifetime_s };
        now_s.saturating_sub(last_s) >= lifetime_s(protocol, flow.signs, backend.signs, lasted_s)
    }

    /// Removes all rows of a flow, or the one that has no flow.
    fn remove(&self, tuple: &Tuple, flow: &Flow) -> anyhow::Result<()> {
        self.remove_row(tuple, flow)?;
        let (Some(protocol), Form::Dialled) = (tuple.protocol(), flow.form()) else { return Ok(()) };
        for form in [Form::Received, Form::Forwarded] {
            if let Some(mut other) = self.other(flow, form, protocol) {
                let tuple = other.set_form(form, protocol);
                self.remove_row(&tuple, flow)?;
            }
        }
        Ok(())
    }

    /// Removes a row, if it is still that flow's.
    fn remove_row(&self, tuple: &Tuple, flow: &Flow) -> anyhow::Result<()> {
        if !self.get(tuple).is_some_and(|current| is_same(&current, flow)) {
            return Ok(());
        }
        let taken: Option<Flow> = sys::take_row(self.data.fd().as_fd(), tuple).context("removing a flow")?;
        let Some(taken) = taken.filter(|taken| !is_same(taken, flow)) else { return Ok(()) };
        // A program ended the flow and began another in this very moment: that one keeps its row.
        match aya::maps::HashMap::<_, Row<Tuple>, Row<Flow>>::try_from(Map::HashMap(self.reopen()?))?.insert(
            Row(*tuple),
            Row(taken),
            NOEXIST,
        ) {
            Err(error) if !super::store::is_there(&error) => Err(error).context("putting back a flow"),
            _ => Ok(()),
        }
    }

    fn reopen(&self) -> anyhow::Result<MapData> {
        Ok(MapData::from_fd(self.data.fd().as_fd().try_clone_to_owned()?)?)
    }
}

/// Whether two rows are of one flow. A client may end one and begin another under the same tuple within a second; then its
/// source port, or its backend, is another.
fn is_same(one: &Flow, other: &Flow) -> bool {
    one.begun_s == other.begun_s
        && one.service == other.service
        && one.ends(Form::Received) == other.ends(Form::Received)
}

/// Seconds since boot, suspended time excluded: the clock of the programs.
pub(super) fn seconds() -> anyhow::Result<u32> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("reading the clock")?;
    u32::try_from(time.tv_sec()).context("136 years after boot")
}
