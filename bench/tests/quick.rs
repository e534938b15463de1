//! The whole benchmark once, few and short measurements: that it measures, says so and leaves a record. Needs root.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_tests::lab::binary;

#[test]
fn a_quick_run_measures_everything() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    let output = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args(["--quick", "--seed", "7", "--output"])
        .arg(&path)
        .env("WEIR_BIN", binary::find_weir().unwrap())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for figure in [
        "connect/direct@10",
        "established/direct",
        "stream/direct",
        "udp-connect/direct@10",
        "hook.service-ns",
        "hook.service@100/@1",
        "nodeport/forward@10",
        "nodeport.v6/forward@100",
        "nodeport-new/iptables@100",
        "nodeport-new/conntrack@10",
        "nodeport-reply/forward@10",
        "nodeport-connect/iptables@10",
        "nodeport.hook.reply-ns@10",
    ] {
        let found = printed.lines().find_map(|line| line.strip_prefix(&format!("figure {figure} ")));
        let value: f64 =
            found.unwrap_or_else(|| panic!("no figure {figure} in:\n{printed}")).parse().unwrap();
        assert!(value.is_finite(), "{figure}");
    }
    assert!(!printed.contains("holds"), "two pairs decide nothing:\n{printed}");
    check_record(&path);
}

fn check_record(path: &Path) {
    let record: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(record["seed"], 7);
    assert!(record["machine"]["cores"].as_u64().unwrap() > 0);
    let measurements = record["traffic"]["measurements"].as_array().unwrap();
    // two pairs of four workloads
    assert_eq!(measurements.len(), 16);
    for it in measurements {
        assert!(it["delivered"].as_u64().unwrap() > 0 && it["rate"].as_f64().unwrap() > 0.0, "{it}");
    }
    // three rounds, two kinds of sockets: no program; a pod and a Service among 1; those and every Service among 100
    assert_eq!(record["hook"]["measurements"].as_array().unwrap().len(), 3 * 2 * 6);
    // two rounds: four kinds of traffic and six subjects in IPv4, two kinds and three subjects in IPv6
    let measurements = record["nodeport"]["measurements"].as_array().unwrap();
    assert_eq!(measurements.len(), 2 * (4 * 6 + 2 * 3));
    assert!(measurements.iter().all(|it| it["delivered"].as_u64().unwrap() > 0));
    // two variants, two families, three packets
    assert_eq!(record["nodeport"]["runs"].as_array().unwrap().len(), 2 * 2 * 2 * 3);
}
