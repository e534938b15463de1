//! From API objects to tables, by the agent's own steps: parse, state, compile, write.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_agent::compile::compile_service;
use weir_agent::source::{Event, NodeAddress, ObjectKey, Parsed, parse_service, parse_slice};
use weir_agent::state::{NodePortAddresses, State};
use weir_agent::tables::memory::MemoryStore;
use weir_agent::tables::{Sizes, Tables};
use weir_ebpf::testing::MemoryTables;

/// What a cluster has.
pub(super) struct Objects<'a> {
    pub(super) services: &'a [core::Service],
    pub(super) slices: &'a [discovery::EndpointSlice],
}

/// What a node of this name and with these addresses has in its tables once it has seen these objects.
///
/// # Errors
/// An object has a problem, or a row could not be written.
pub(super) fn build_tables(
    node: &str,
    node_ports: NodePortAddresses,
    addresses: Vec<NodeAddress>,
    objects: &Objects<'_>,
) -> anyhow::Result<MemoryTables> {
    let mut state = State::new(node).with_node_ports(node_ports);
    state.apply(Event::NodeAddresses(addresses));
    for service in objects.services {
        let key = object_key(&service.metadata)?;
        let object = faultless("Service", &key, parse_service(service))?;
        state.apply(Event::Service(key, object));
    }
    for slice in objects.slices {
        let key = object_key(&slice.metadata)?;
        let object = faultless("EndpointSlice", &key, parse_slice(slice))?;
        state.apply(Event::EndpointSlice(key, object));
    }
    let mut store = MemoryStore::default();
    let mut tables = Tables::new(Sizes::default());
    for key in state.take_dirty() {
        let plan = state.service(&key).map(|view| compile_service(&view, state.node()));
        tables.apply(&key, plan.as_ref(), &mut store);
    }
    // After the Services: what they have at these addresses already has to follow.
    let addresses = state.addresses().context("nobody said which addresses the node has")?;
    tables.apply_addresses(addresses, &mut store);
    let problems: Vec<_> = tables.problems().collect();
    ensure!(problems.is_empty(), "writing the tables: {problems:?}");
    Ok(store.tables)
}

fn object_key(metadata: &ObjectMeta) -> anyhow::Result<ObjectKey> {
    let namespace = metadata.namespace.as_deref().context("an object without a namespace")?;
    Ok(ObjectKey::new(namespace, metadata.name.as_deref().context("an object without a name")?))
}

/// No object of the vectors is at fault; one that seems so would be judged without what parsing took from it.
fn faultless<T>(kind: &str, key: &ObjectKey, parsed: Parsed<T>) -> anyhow::Result<Option<T>> {
    ensure!(parsed.problems.is_empty(), "{kind} {key}: {:?}", parsed.problems);
    Ok(parsed.object)
}
