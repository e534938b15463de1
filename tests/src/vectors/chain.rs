//! From API objects to tables, by the agent's own steps: parse, compile, write.

use anyhow::ensure;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use weir_agent::compile::compile_service;
use weir_agent::compile::topology::Place;
use weir_agent::source::{ObjectKey, parse_service, parse_slice};
use weir_agent::tables::memory::MemoryStore;
use weir_agent::tables::{Sizes, Tables};
use weir_ebpf::testing::MemoryTables;

/// What a node of this name has in its tables once it has seen these objects.
///
/// # Errors
/// An object has a problem, or a row could not be written.
pub(super) fn build_tables(
    node: &str,
    services: &[core::Service],
    slices: &[discovery::EndpointSlice],
) -> anyhow::Result<MemoryTables> {
    let mut parsed_slices = Vec::new();
    for slice in slices {
        let parsed = parse_slice(slice);
        ensure!(parsed.problems.is_empty(), "EndpointSlice {:?}: {:?}", slice.metadata.name, parsed.problems);
        parsed_slices.extend(parsed.object.map(|object| (&slice.metadata.namespace, object)));
    }
    let mut store = MemoryStore::default();
    let mut tables = Tables::new(Sizes::default());
    for service in services {
        let parsed = parse_service(service);
        ensure!(parsed.problems.is_empty(), "Service {:?}: {:?}", service.metadata.name, parsed.problems);
        let Some(object) = parsed.object else { continue };
        let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else {
            anyhow::bail!("a Service without a name")
        };
        let key = ObjectKey::new(namespace.as_str(), name.as_str());
        let own = parsed_slices
            .iter()
            .filter(|(of, slice)| of.as_ref() == Some(namespace) && *slice.service == **name)
            .map(|(_, slice)| slice);
        let plan = compile_service(&key, &object, own, Place { node, zone: None });
        tables.apply(&key, Some(&plan), &mut store);
    }
    let problems: Vec<_> = tables.problems().collect();
    ensure!(problems.is_empty(), "writing the tables: {problems:?}");
    Ok(store.tables)
}
