//! Netfilter rules of the subjects that have some.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use weir_tests::lab::netns::Netns;

use super::plan::{ENDPOINTS, Family, SINK_PORT, endpoint, node_port};
use super::services::{TCP, tcp_node_port};

/// One rule that asks for a packet's connection: it is what makes the kernel keep track of them.
const TRACK: &str = "table inet bench {\n chain forward {\n  type filter hook forward priority filter;\n  \
     ct state invalid counter\n }\n}\n";

/// Has netfilter keep track of connections, and nothing more.
///
/// # Errors
/// What `nft` said.
pub(super) fn track(node: &Netns) -> Result<()> {
    feed(node, "nft", &["-f", "-"], TRACK)
}

/// kube-proxy's rules for so many Services with a node port and three endpoints each.
///
/// # Errors
/// What `iptables-restore` said.
pub(super) fn proxy(node: &Netns, services: u32) -> Result<()> {
    feed(node, "iptables-restore", &[], &table(services))
}

/// As kube-proxy writes it (pkg/proxy/iptables, `syncProxyRules`): chains, and rules with the same matches in the same
/// order. What concerns ClusterIPs comes first in KUBE-SERVICES, and node ports last.
fn table(services: u32) -> String {
    let (mut chains, mut ports, mut rules, mut cluster) = Default::default();
    for number in 0..services {
        // the TCP workloads' in the middle, where the average Service is
        if number == services / 2 {
            for (at, port) in (0..).zip(TCP) {
                let name = format!("TCP{at}");
                let ends = [(endpoint(Family::V4, 0, 0).to_string(), port)];
                let vip = (services + at, port);
                service(
                    &mut [&mut chains, &mut ports, &mut rules, &mut cluster],
                    &name,
                    "tcp",
                    vip,
                    tcp_node_port(port),
                    &ends,
                );
            }
        }
        let ends: Vec<_> =
            (0..ENDPOINTS).map(|at| (endpoint(Family::V4, number, at).to_string(), SINK_PORT)).collect();
        let name = format!("{number:013}");
        let out = &mut [&mut chains, &mut ports, &mut rules, &mut cluster];
        service(out, &name, "udp", (number, SINK_PORT), node_port(number), &ends);
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         {chains}\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         {rules}{cluster}{ports}\
         -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
         -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         COMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n"
    )
}

/// The chains of one Service port, and the rules that lead to them.
fn service(
    [chains, ports, rules, cluster]: &mut [&mut String; 4],
    name: &str,
    protocol: &str,
    (vip, port): (u32, u16),
    node_port: u16,
    endpoints: &[(String, u16)],
) {
    let comment = format!("-m comment --comment \"bench/service-{name}:{protocol}\"");
    let vip = super::services::cluster_ip(vip);
    let (svc, ext) = (format!("KUBE-SVC-{name}"), format!("KUBE-EXT-{name}"));
    let mut lines = format!(
        "-A {ext} {comment} -j KUBE-MARK-MASQ\n-A {ext} -j {svc}\n\
         -A {svc} ! -s 10.128.0.0/9 -d {vip}/32 -p {protocol} {comment} -m {protocol} --dport {port} -j KUBE-MARK-MASQ\n"
    );
    let mut heads = format!(":{svc} - [0:0]\n:{ext} - [0:0]\n");
    for (at, (address, port)) in endpoints.iter().enumerate() {
        let sep = format!("KUBE-SEP-{name}{at}");
        let left = endpoints.len() - at;
        let share = match left {
            1 => String::new(),
            // one in so many of those that come as far
            _ => format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / f64::from(u32::try_from(left).unwrap_or(1))
            ),
        };
        // writing to a String does not fail
        let _ = writeln!(heads, ":{sep} - [0:0]");
        let _ = write!(
            lines,
            "-A {svc} {comment} {share}-j {sep}\n-A {sep} -s {address}/32 {comment} -j KUBE-MARK-MASQ\n\
             -A {sep} -p {protocol} {comment} -m {protocol} -j DNAT --to-destination {address}:{port}\n"
        );
    }
    chains.push_str(&heads);
    rules.push_str(&lines);
    let _ = writeln!(
        cluster,
        "-A KUBE-SERVICES -d {vip}/32 -p {protocol} {comment} -m {protocol} --dport {port} -j {svc}"
    );
    let _ = writeln!(
        ports,
        "-A KUBE-NODEPORTS -p {protocol} {comment} -m {protocol} --dport {node_port} -j {ext}"
    );
}

fn feed(node: &Netns, program: &str, arguments: &[&str], text: &str) -> Result<()> {
    node.enter(|| {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_that_a_rule_leads_to_is_there() {
        let table = table(3);
        let made: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next()).collect();
        let led_to = table.lines().filter_map(|line| line.split(" -j KUBE-").nth(1));
        for chain in led_to {
            let chain = format!("KUBE-{}", chain.split(' ').next().unwrap());
            assert!(made.contains(&chain.as_str()), "{chain}");
            assert!(chain.len() <= 28, "{chain}: the kernel's limit");
        }
        assert_eq!(table.matches("-A KUBE-NODEPORTS").count(), 3 + TCP.len());
        assert_eq!(table.matches("--mode random").count(), 3 * 2);
    }
}
