//! The metrics, in the OpenMetrics text format. Everything is read when it is asked for; nothing is counted twice.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use weir_ebpf::abi::{Counter, DropReason};

use super::hold::{Hold, Off, holds};
use super::report::{PlaceReport, Report, SharedReport};
use crate::kernel::Fill;
use crate::source::Connection;

/// What is in the kernel alone.
#[derive(Debug, Default)]
pub struct InKernel {
    /// What the programs counted.
    pub counters: Vec<(Counter, u64)>,
    /// How full the tables are that the report says nothing of.
    pub fills: Vec<Fill>,
}

/// Reads that, at the moment of asking.
pub(super) type ReadKernel = Box<dyn Fn() -> InKernel + Send + Sync>;

/// The registry of the agent.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Over the report and what is in the kernel.
    #[must_use]
    pub fn new(report: SharedReport, kernel: ReadKernel) -> Self {
        let mut registry = Registry::with_prefix("weir");
        registry.register_collector(Box::new(Source { report, kernel }));
        Self(registry)
    }

    /// As text.
    ///
    /// # Errors
    /// Never in practice: writing to a string.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

struct Source {
    report: SharedReport,
    kernel: ReadKernel,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (kernel, report) = ((self.kernel)(), self.report.read());
        encode_counters(&mut encoder, &kernel.counters)?;
        encode_tables(&mut encoder, &report, &kernel.fills)?;
        encode_report(&mut encoder, &report)
    }
}

fn encode_counters(encoder: &mut DescriptorEncoder<'_>, counters: &[(Counter, u64)]) -> fmt::Result {
    let is_drop = |counter: Counter| DropReason::ALL.iter().any(|&reason| Counter::from(reason) == counter);
    let (drops, others): (Vec<_>, Vec<_>) = counters.iter().partition(|(counter, _)| is_drop(*counter));
    let (watched, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(counter, _)| direction(*counter).is_some());
    let label = |counter: Counter| counter.label();
    labelled(
        encoder,
        "drops",
        "Sockets and packets refused or dropped, by reason",
        ("reason", label),
        drops,
    )?;
    let label = |counter| direction(counter).unwrap_or_default();
    let help = "Flows of pods that policies in audit mode would deny";
    labelled(encoder, "would_drop", help, ("direction", label), watched)?;
    let label = |counter: Counter| counter.label();
    labelled(encoder, "events", "What the programs did", ("event", label), others)
}

/// Of what policies in audit mode would deny: to pods, or from pods.
const fn direction(counter: Counter) -> Option<&'static str> {
    match counter {
        Counter::WouldDropIngress => Some("ingress"),
        Counter::WouldDropEgress => Some("egress"),
        _ => None,
    }
}

fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (label, name_of): (&'static str, impl Fn(Counter) -> &'static str),
    values: Vec<(Counter, u64)>,
) -> fmt::Result {
    let example = ConstCounter::new(0_u64);
    let mut family = encoder.encode_descriptor(name, help, None, example.metric_type())?;
    for (counter, value) in values {
        let labels = [(label, name_of(counter))];
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_report(encoder: &mut DescriptorEncoder<'_>, report: &Report) -> fmt::Result {
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let gauges = [
        ("ready", "Whether the tables say what the cluster says", i64::from(report.ready)),
        ("services", "Services that are served", gauge(report.objects.services)),
        ("endpointslices", "EndpointSlices that are known", gauge(report.objects.slices)),
        ("endpoints", "Endpoints that are known", gauge(report.objects.endpoints)),
        (
            "problems",
            "Objects and fields that are wrong; `weir status` names them",
            gauge(report.problems.len() + report.network.problems.len()),
        ),
        ("devices", "Devices that lead to other nodes and the world", gauge(report.network.devices.len())),
        ("pods", "Pods of this node", gauge(report.network.pods)),
        ("pod_addresses", "Addresses of this node's pods", gauge(report.network.pod_addresses)),
        ("policies_in_force", "Whether there are policies", i64::from(report.policies.is_on)),
        ("network_policies", "NetworkPolicies that are known", gauge(report.objects.policies)),
        (
            "cluster_network_policies",
            "ClusterNetworkPolicies that are known",
            gauge(report.objects.cluster_policies),
        ),
        ("audited_policies", "Policies of both kinds that are audited", gauge(report.objects.audited)),
        ("policy_pods", "Pods of this node that policies know", gauge(report.policies.pods)),
        ("isolated_pods", "Pods of this node that some policy isolates", gauge(report.policies.isolated)),
        ("oldest_flow_seconds", "How long ago the oldest flow began", report.flows.oldest_s.into()),
    ];
    for (name, help, value) in gauges.into_iter().chain(place_gauges(&report.places)) {
        let value = ConstGauge::new(value);
        value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
    }
    if let Some(connection) = &report.connection {
        encode_connection(encoder, connection)?;
    }
    encode_holds(encoder, &report.places)?;
    encode_where_held(encoder, report)?;
    let counters = [
        ("syncs", "Batches of changes that were written", report.syncs),
        ("swept_flows", "Flows forgotten because their lifetime was over", report.flows.swept),
        (
            "swept_judged",
            "Flows of isolated pods forgotten because their lifetime was over",
            report.policies.swept,
        ),
        ("drops_read", "Drops and refusals of which the agent has read, one by one", report.drops_read),
        ("stale_flows", "Flows forgotten because their backend is gone", report.flows.stale),
        ("closed_sockets", "Sockets closed because their backend is gone", report.closed_sockets),
    ];
    for (name, help, value) in counters {
        let value = ConstCounter::new(value);
        value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one batch")]
    let seconds = ConstGauge::new(report.last_sync_us as f64 / 1e6);
    let help = "How long the last batch of changes took to compile and write";
    seconds.encode(encoder.encode_descriptor(
        "last_sync",
        help,
        Some(&Unit::Seconds),
        seconds.metric_type(),
    )?)
}

fn place_gauges(places: &PlaceReport) -> [(&'static str, &'static str, i64); 4] {
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    [
        (
            "held_devices",
            "Devices that are held because nobody knows whose they are",
            gauge(places.held.len()),
        ),
        (
            "foreign_devices",
            "Devices behind which nobody of the cluster is: they pass",
            gauge(places.others.len()),
        ),
        ("unenforced_pods", "Pods of this node that no policy can hold", gauge(places.unenforced.len())),
        ("contested_addresses", "Addresses on devices which they are not for", gauge(places.contested)),
    ]
}

/// How long pods were held until they were known.
fn encode_holds(encoder: &mut DescriptorEncoder<'_>, places: &PlaceReport) -> fmt::Result {
    let count = ConstCounter::new(places.holds);
    let help = "Pods that were held until they were known";
    count.encode(encoder.encode_descriptor("pod_holds", help, None, count.metric_type())?)?;
    let sum = ConstCounter::new(places.hold_seconds);
    let help = "How long all of them were held together";
    sum.encode(encoder.encode_descriptor("pod_hold", help, Some(&Unit::Seconds), sum.metric_type())?)?;
    let longest = ConstGauge::new(places.longest_hold_seconds);
    let help = "The longest that one of them was held";
    let unit = Some(&Unit::Seconds);
    longest.encode(encoder.encode_descriptor("longest_pod_hold", help, unit, longest.metric_type())?)
}

/// Where pods that nobody knows are held; where not, why.
fn encode_where_held(encoder: &mut DescriptorEncoder<'_>, report: &Report) -> fmt::Result {
    let example = ConstGauge::new(0_i64);
    let help = "Whether pods that nobody knows are held there, and why not";
    let mut family = encoder.encode_descriptor("hold_unknown", help, None, example.metric_type())?;
    for Hold { at, off } in holds(report) {
        let labels = [("at", at), ("why", off.map_or("", Off::label))];
        ConstGauge::new(i64::from(off.is_none())).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_tables(encoder: &mut DescriptorEncoder<'_>, report: &Report, fills: &[Fill]) -> fmt::Result {
    let rows = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let usage = report.usage;
    let mut used = vec![
        ("frontends", rows(usage.frontends)),
        ("services", rows(usage.services)),
        ("backends", usage.backends.into()),
        ("source_ranges", rows(usage.source_ranges)),
        ("flows", rows(report.flows.rows)),
        ("judged", rows(report.policies.judged)),
    ];
    used.extend(fills.iter().map(|fill| (fill.table.as_str(), rows(fill.rows))));
    let sizes = report.sizes.rows();
    let mut room: Vec<(&str, i64)> = sizes.iter().map(|(table, rows)| (*table, (*rows).into())).collect();
    let fixed = fills.iter().filter(|fill| sizes.iter().all(|(table, _)| *table != fill.table));
    room.extend(fixed.map(|fill| (fill.table.as_str(), fill.capacity.into())));
    tables(encoder, "table_rows", "Rows in use", &used)?;
    tables(encoder, "table_capacity", "Rows that there is room for", &room)
}

fn encode_connection(encoder: &mut DescriptorEncoder<'_>, connection: &Connection) -> fmt::Result {
    let connected = ConstGauge::new(i64::from(connection.connected));
    let help = "Whether all watches of the API server are up; if not, what was known stays in force";
    connected.encode(encoder.encode_descriptor(
        "source_connected",
        help,
        None,
        connected.metric_type(),
    )?)?;
    let counters = [
        ("source_errors", "Requests to the API server that failed", connection.errors),
        (
            "source_events_sent",
            "Kubernetes Events sent, about objects that are wrong",
            connection.events_sent,
        ),
        (
            "source_events_dropped",
            "Kubernetes Events that found no room, no server or no right",
            connection.events_dropped,
        ),
        ("source_lists", "Full lists that were asked for; one for each kind at the start", connection.lists),
    ];
    for (name, help, value) in counters {
        let value = ConstCounter::new(value);
        value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
    }
    Ok(())
}

fn tables(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &[(&str, i64)],
) -> fmt::Result {
    let example = ConstGauge::new(0_i64);
    let mut family = encoder.encode_descriptor(name, help, None, example.metric_type())?;
    for (table, value) in values {
        ConstGauge::new(*value).encode(family.encode_family(&[("table", *table)])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Sizes;

    #[test]
    fn every_counter_and_every_drop_reason_has_a_line() {
        let report = SharedReport::default();
        report.update(|report| (report.ready, report.drops_read) = (true, 7));
        let kernel = || InKernel {
            counters: Counter::ALL.iter().zip(10_u64..).map(|(&counter, value)| (counter, value)).collect(),
            fills: Vec::new(),
        };
        let text = Metrics::new(report, Box::new(kernel)).encode().unwrap();
        for (counter, value) in Counter::ALL.iter().zip(10_u64..) {
            let drop = DropReason::ALL.iter().any(|reason| reason.label() == counter.label());
            let line = if drop {
                format!("weir_drops_total{{reason=\"{}\"}} {value}", counter.label())
            } else if let Some(direction) = counter.label().strip_prefix("would-drop-") {
                format!("weir_would_drop_total{{direction=\"{direction}\"}} {value}")
            } else {
                format!("weir_events_total{{event=\"{}\"}} {value}", counter.label())
            };
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("weir_ready 1") && text.contains("weir_drops_read_total 7"));
    }

    #[test]
    fn where_nobody_is_held_is_told_with_the_reason() {
        let report = SharedReport::default();
        report.update(|report| {
            (report.places.hold.is_asked, report.places.hold.is_on) = (true, true);
            report.network.pod_networks = 1;
        });
        let text = Metrics::new(report, Box::new(InKernel::default)).encode().unwrap();
        for (labels, value) in [
            ("at=\"devices\",why=\"\"", 1),
            ("at=\"sockets\",why=\"no-cgroups\"", 0),
            ("at=\"addresses\",why=\"\"", 1),
        ] {
            let line = format!("weir_hold_unknown{{{labels}}} {value}");
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn each_table_has_its_rows_and_its_capacity_once() {
        let report = SharedReport::default();
        report.update(|report| {
            report.usage.frontends = 3;
            report.flows.rows = 4;
        });
        let fill = |table: &str, rows| Fill { table: table.into(), rows, capacity: 8192 };
        let kernel = move || InKernel {
            fills: vec![fill("connections", 5), fill("devices", 6)],
            ..InKernel::default()
        };
        let text = Metrics::new(report, Box::new(kernel)).encode().unwrap();
        let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
        for (table, rows) in [("frontends", 3), ("flows", 4), ("connections", 5), ("devices", 6)] {
            let name = format!("weir_table_rows{{table=\"{table}\"}}");
            assert_eq!(lines(&name), [format!("{name} {rows}")]);
        }
        for (table, rows) in Sizes::default().rows().into_iter().chain([("devices", 8192)]) {
            let name = format!("weir_table_capacity{{table=\"{table}\"}}");
            assert_eq!(lines(&name), [format!("{name} {rows}")]);
        }
    }
}
