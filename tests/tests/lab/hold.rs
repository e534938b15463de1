//! Pods that nobody knows yet: what they may while no agent runs, until their Pod objects are known, and before these say an
//! address. Their processes are in cgroups that are named as the kubelet names them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::cases::CAST;
use weir_tests::lab::address::pod_cidrs;
use weir_tests::lab::cluster::PORTS;
use weir_tests::lab::{Cluster, DualStack, Form, netns};
use weir_tests::prober::{Command, How, Outcome};

use crate::SETTINGS;
use crate::support::eventually;

const NEW: &str = "n1-new";
const UID: &str = "0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d";
const FORMS: [Form; 2] = [Form::V4, Form::V6];

/// As containerd has it with the cgroupfs driver.
fn below() -> PathBuf {
    format!("kubepods/besteffort/pod{UID}/c").into()
}

fn node() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1"},
        "spec": {"podCIDRs": pod_cidrs(1)},
    })
}

fn pod(name: &str, uid: Option<&str>, app: &str, addresses: Option<DualStack>) -> Value {
    let addresses = addresses.map(|own| json!([{"ip": own.v4}, {"ip": own.v6}]));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "lab", "name": name, "uid": uid, "labels": {"app": app}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Pending", "podIPs": addresses},
    })
}

/// The pods of a label send nothing.
fn silent(app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "lab", "name": "silent"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Egress"]},
    })
}

/// Two nodes, agents that hold who is not known on the first, where the Node says of which networks pods are.
fn world() -> Result<Cluster> {
    let mut cluster = world_of_unsaid_networks()?;
    cluster.apply("node.yaml", &[node()])?;
    Ok(cluster)
}

/// The same where nobody says that: who is not known is held at devices and sockets alone.
fn world_of_unsaid_networks() -> Result<Cluster> {
    let mut cluster = Cluster::create(SETTINGS, &CAST)?;
    let node_cgroup = cluster.lab().nodes()[0].cgroup().to_owned();
    // The kubelet has made it before there are pods.
    fs::create_dir_all(node_cgroup.join("kubepods/besteffort"))?;
    cluster.start_agents()?;
    let known =
        ["n1-a", "n1-b", "n1-c"].map(|name| Ok(pod(name, None, "known", Some(cluster.addresses(name)?))));
    cluster.apply("known.yaml", &known.into_iter().collect::<Result<Vec<_>>>()?)?;
    Ok(cluster)
}

/// What comes of one question.
fn ask(cluster: &Cluster, from: &str, to: &str, form: Form, how: How) -> Result<Outcome> {
    let to: SocketAddr = cluster.addresses(to)?.dial(form, PORTS[0]);
    cluster.prober(from)?.call(Command::Ask { how, to })
}

fn expect(cluster: &Cluster, rows: &[(&str, &str, bool)]) -> Result<()> {
    for &(from, to, passes) in rows {
        for form in FORMS {
            for how in [How::Tcp, How::UdpUnconnected] {
                let outcome = ask(cluster, from, to, form, how)?;
                let answered = matches!(outcome, Outcome::Answered(_));
                ensure!(
                    answered == passes,
                    "{from} to {to} ({form:?}, {how}): {outcome:?}, expected {passes}"
                );
            }
        }
    }
    Ok(())
}

/// The devices that are held, as `weir status` says it.
fn held(cluster: &mut Cluster) -> Result<Vec<String>> {
    let places = cluster.agent(1)?.status()?["agent"]["places"].take();
    let held = places["held"].as_array().context("no list of held devices")?;
    Ok(held.iter().filter_map(|device| Some(device["name"].as_str()?.to_owned())).collect())
}

fn wait_until_known(cluster: &mut Cluster) -> Result<()> {
    eventually("nobody is held", || Ok(held(cluster)?.is_empty().then_some(())))
}

/// A pod that is made while the agent is dead sends nothing and gets nothing, but of its own node.
pub(crate) fn while_no_agent_runs() -> Result<()> {
    let mut cluster = world()?;
    cluster.apply("silent.yaml", &[silent("nobody")])?;
    cluster.agent(1)?.kill()?;
    cluster.add_pod_below((1, NEW), &below())?;
    // The other node's agent, and another pod of this one, have nothing to do with it.
    expect(
        &cluster,
        &[
            ("n2-a", NEW, false),
            ("outside", NEW, false),
            ("n1-a", NEW, false),
            (NEW, "n2-a", false),
            (NEW, "outside", false),
            (NEW, "n1-a", false),
            ("n1-a", "n2-a", true),
            ("n2-a", "n1-a", true),
            ("n1", "n1-a", true),
            ("outside", "n1-b", true),
        ],
    )?;
    let outcome = ask(&cluster, NEW, "n2-a", Form::V4, How::Tcp)?;
    let refused = matches!(&outcome, Outcome::Failed(failure) if failure.error == "EHOSTUNREACH");
    ensure!(refused, "at the socket, and at once: {outcome:?}");
    cluster.manifests.replace_objects("new.yaml", &[pod(NEW, Some(UID), "new", None)])?;
    let agent = cluster.agent(1)?;
    agent.start()?;
    agent.wait_ready()?;
    wait_until_known(&mut cluster)?;
    expect(&cluster, &[("n2-a", NEW, true), ("outside", NEW, true), (NEW, "n2-a", true), (NEW, "n1-a", true)])
}

/// A pod is held until its object is known, and isolated from then on though that says no address.
pub(crate) fn until_it_is_known() -> Result<()> {
    let mut cluster = world()?;
    cluster.apply("silent.yaml", &[silent("client")])?;
    cluster.add_pod_below((1, NEW), &below())?;
    let devices =
        eventually("the new pod is held", || Ok(Some(held(&mut cluster)?).filter(|held| !held.is_empty())))?;
    ensure!(devices.len() == 1, "nobody else: {devices:?}");
    expect(
        &cluster,
        &[(NEW, "n2-a", false), ("n2-a", NEW, false), ("n1-a", NEW, false), ("n1-a", "n2-a", true)],
    )?;
    cluster.apply("new.yaml", &[pod(NEW, Some(UID), "client", None)])?;
    wait_until_known(&mut cluster)?;
    let rows = [(NEW, "n2-a", false), (NEW, "n1-a", false), ("n2-a", NEW, true), ("n1-a", NEW, true)];
    expect(&cluster, &rows).context("isolated without an address")?;
    let status = cluster.agent(1)?.status()?;
    ensure!(status["agent"]["places"]["holds"].as_u64() == Some(1), "{}", status["agent"]["places"]);
    // Its status says where it is by and by, and nothing changes.
    let own = cluster.addresses(NEW)?;
    cluster.apply("new.yaml", &[pod(NEW, Some(UID), "client", Some(own))])?;
    expect(&cluster, &rows).context("with an address")?;
    cluster.apply("new.yaml", &[pod(NEW, Some(UID), "other", Some(own))])?;
    expect(&cluster, &[(NEW, "n2-a", true)])
}

/// Containers of another runtime pass, and so do a pod's other networks; what a pod adds to its device is not its own.
pub(crate) fn second_networks_and_others() -> Result<()> {
    let mut cluster = world()?;
    cluster.apply("silent.yaml", &[silent("client")])?;
    let docker = format!("docker-{}.scope", "ab".repeat(32));
    // It may be the pod that is being made: what makes it may be in any cgroup.
    cluster.apply("coming.yaml", &[pod("n1-coming", Some(&UID.replace('0', "1")), "client", None)])?;
    cluster.add_pod_below((1, "n1-docker"), &PathBuf::from(docker))?;
    eventually("it is held", || Ok((held(&mut cluster)?.len() == 1).then_some(())))?;
    expect(&cluster, &[("n1-docker", "n2-a", false), ("n2-a", "n1-docker", false)])?;
    cluster.manifests.remove("coming.yaml")?;
    eventually("it is said to be no pod", || {
        let places = cluster.agent(1)?.status()?["agent"]["places"].take();
        let others = places["others"].as_array().context("no list of others")?;
        Ok((others.len() == 1).then_some(()))
    })?;
    expect(
        &cluster,
        &[("n1-docker", "n2-a", true), ("n1-docker", "n1-a", true), ("n2-a", "n1-docker", true)],
    )?;
    cluster.add_pod_below((1, NEW), &below())?;
    let (own, neighbour) = (cluster.addresses(NEW)?, cluster.addresses("n1-a")?);
    cluster.apply("new.yaml", &[pod(NEW, Some(UID), "other", Some(own))])?;
    wait_until_known(&mut cluster)?;
    expect(&cluster, &[(NEW, "n2-a", true)])?;
    let place = cluster.lab().nodes()[0].pods().iter().find(|pod| pod.place.name() == NEW);
    let place = place.context("no such pod")?.place.clone();
    place.netns().ip(&[format!("address add {}/32 dev eth0", neighbour.v4)])?;
    let problems = eventually("the neighbour's address is said to be contested", || {
        Ok(Some(cluster.agent(1)?.problems()?).filter(|problems| !problems.is_empty()))
    })?;
    ensure!(problems[0].object == format!("Pod lab/{NEW}"), "{problems:?}");
    expect(&cluster, &[("n2-a", "n1-a", true), ("n1-a", "n2-a", true), (NEW, "n2-a", true)])
}

/// A network namespace that nobody finds a way into: no process is in it, and it is mounted nowhere.
struct OutOfReach {
    /// It is there for as long as this is open.
    _open: File,
}

impl OutOfReach {
    /// Behind a veth of the first node, while no agent is there to see the way.
    fn create(cluster: &mut Cluster) -> Result<Self> {
        cluster.agent(1)?.kill()?;
        let node = cluster.lab().nodes()[0].place().netns();
        let name = format!("{}-lost", node.name());
        let lost = netns::create(std::slice::from_ref(&name))?.remove(0);
        let open = lost.open()?;
        let made = node
            .ip(&[format!("link add lost type veth peer name eth0 netns {name}"), "link set lost up".into()]);
        netns::remove(&name)?;
        made?;
        let agent = cluster.agent(1)?;
        agent.start()?;
        agent.wait_ready()?;
        Ok(Self { _open: open })
    }
}

/// One namespace out of reach is held, and changes nothing for a pod that nobody knows.
pub(crate) fn beside_a_namespace_out_of_reach() -> Result<()> {
    let mut cluster = world_of_unsaid_networks()?;
    cluster.apply("silent.yaml", &[silent("nobody")])?;
    let _lost = OutOfReach::create(&mut cluster)?;
    eventually("it is seen and held", || Ok((held(&mut cluster)? == ["lost"]).then_some(())))?;
    let agent = cluster.agent(1)?.status()?["agent"].take();
    ensure!(agent["network"]["pods_without_namespace"] == 1, "{}", agent["network"]);
    ensure!(agent["places"]["hold"]["is_on"] == true, "{}", agent["places"]);
    cluster.agent(1)?.kill()?;
    cluster.add_pod_below((1, NEW), &below())?;
    for form in FORMS {
        let outcome = ask(&cluster, NEW, "n2-a", form, How::Tcp)?;
        let is_held = matches!(&outcome, Outcome::Failed(failure) if failure.error == "EHOSTUNREACH");
        ensure!(is_held, "{form:?}: nobody knows it: {outcome:?}");
    }
    expect(&cluster, &[("n1-a", "n2-a", true), ("n2-a", "n1-a", true)])
}

/// Namespaces that a pod with the node's network makes are no pods: not at their sockets, and not at their devices.
pub(crate) fn what_a_pod_with_the_nodes_network_makes() -> Result<()> {
    let mut cluster = world_of_unsaid_networks()?;
    cluster.apply("silent.yaml", &[silent("nobody")])?;
    let mut host = pod("host", Some(UID), "host", None);
    host["spec"]["hostNetwork"] = true.into();
    cluster.apply("host.yaml", &[host])?;
    // The kubelet has heard of it later than we.
    let cgroup = cluster.lab().nodes()[0].cgroup().join(below());
    fs::create_dir_all(cgroup.parent().context("it is below its pod's")?)?;
    eventually("its cgroup is known", || {
        let network = cluster.agent(1)?.status()?["agent"]["network"].take();
        Ok((network["seen_cgroups"] == 1).then_some(()))
    })?;
    cluster.agent(1)?.kill()?;
    cluster.add_pod_below((1, NEW), &below())?;
    let rows = [(NEW, "n2-a", true), (NEW, "n1-a", true)];
    expect(&cluster, &rows).context("while no agent runs")?;
    let agent = cluster.agent(1)?;
    agent.start()?;
    agent.wait_ready()?;
    eventually("it is said to be no pod", || {
        let places = cluster.agent(1)?.status()?["agent"]["places"].take();
        Ok((places["others"].as_array().context("no list of others")?.len() == 1).then_some(()))
    })?;
    expect(&cluster, &rows).context("at its device")
}
