//! Nonsense in the manifests, while traffic runs: each is named, with its field, and nothing else is
//! affected.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::cases::objects;
use weir_tests::cases::spec::service;
use weir_tests::lab::agent::Problem;
use weir_tests::lab::{Cluster, Form, address};
use weir_tests::prober::How;

use crate::support::{self, WEB, ask, ensure_all_delivered, eventually, load, web};

/// A file, and what `weir status` must say about it.
struct Bad {
    what: &'static str,
    text: String,
    /// How the object's name ends.
    object: &'static str,
    /// How the field's name begins.
    field: &'static str,
}

impl Bad {
    fn is_named_by(&self, problem: &Problem) -> bool {
        problem.object.ends_with(self.object)
            && problem.field.starts_with(self.field)
            && !problem.message.is_empty()
    }
}

/// See the module.
pub(crate) fn each_is_named_and_nothing_else_affected() -> Result<()> {
    let mut cluster = support::cluster()?;
    cluster.apply("web.yaml", &web(&service("web").to(&["n1-b", "n2-a"])))?;
    ensure!(cluster.agent(1)?.problems()?.is_empty(), "there is a problem before there is bad input");
    let loads = [
        ("bad-input.tcp", "n1-a", How::Tcp, Form::V4),
        ("bad-input.udp", "n2-b", How::UdpUnconnected, Form::V6),
    ];
    let loads = loads.map(|(name, place, how, form)| {
        Ok::<_, anyhow::Error>((name, place, cluster.prober(place)?.begin(load(how, WEB.dial(form, 80)))?))
    });
    for bad in all_bad()? {
        check(&bad, &mut cluster).with_context(|| bad.what)?;
    }
    broken_file_stays_in_force(&mut cluster)?;
    for load in loads {
        let (name, place, load) = load?;
        ensure_all_delivered(name, &cluster.prober(place)?.stop(load)?)?;
    }
    Ok(())
}

fn check(bad: &Bad, cluster: &mut Cluster) -> Result<()> {
    cluster.manifests.replace("bad.yaml", &bad.text)?;
    cluster.settle()?;
    for node in [1, 2] {
        let agent = cluster.agent(node)?;
        eventually("nothing names the object and the field", || {
            Ok(agent.problems()?.into_iter().find(|problem| bad.is_named_by(problem)))
        })
        .with_context(|| format!("{:?}", agent.problems()))
        .map(|problem| println!("n{node}, {}: {problem}", bad.what))?;
    }
    ask(cluster, "n1-a", How::Tcp, WEB.dial(Form::V6, 80))?;
    cluster.manifests.remove("bad.yaml")?;
    cluster.settle()?;
    let left = cluster.agent(1)?.problems()?;
    ensure!(left.is_empty(), "the file is gone, its problems are not: {left:?}");
    Ok(())
}

/// What a file held before it stopped making sense stays in force.
fn broken_file_stays_in_force(cluster: &mut Cluster) -> Result<()> {
    let vip = address::service(20);
    cluster.apply("late.yaml", &objects::of_service(&service("late").to(&["n1-c"]), "lab", vip))?;
    cluster.manifests.replace("late.yaml", "kind: [Service\n")?;
    cluster.settle()?;
    let agent = cluster.agent(1)?;
    eventually("the broken file is named", || {
        Ok(agent.problems()?.into_iter().find(|problem| problem.object.ends_with("/late.yaml")))
    })?;
    let answer = ask(cluster, "n1-a", How::Tcp, vip.dial(Form::V4, 80))?;
    ensure!(answer.server == "n1-c", "{answer:?}");
    Ok(())
}

fn all_bad() -> Result<Vec<Bad>> {
    let yaml = |objects: &[Value]| weir_tests::lab::manifests::to_yaml(objects);
    let edited = |edit: fn(&mut Vec<Value>)| {
        let mut objects = objects::of_service(&service("bad").to(&["n1-c"]), "lab", address::service(30));
        edit(&mut objects);
        yaml(&objects)
    };
    Ok(vec![
        Bad {
            what: "malformed YAML",
            text: "apiVersion: v1\nkind: {Service\n".into(),
            object: "/bad.yaml",
            field: "document 1",
        },
        Bad {
            what: "an address of the wrong family",
            text: edited(|objects| objects[1]["endpoints"][0]["addresses"] = json!(["fd00:10:244:1::12"]))?,
            object: "EndpointSlice lab/bad-0-ipv4",
            field: "endpoints[0].addresses[0]",
        },
        Bad {
            what: "a duplicate ClusterIP",
            text: yaml(&objects::of_service(&service("bad").to(&["n1-c"]), "lab", WEB))?,
            object: "Service lab/bad",
            field: "spec.clusterIP",
        },
        Bad {
            what: "port 0",
            text: edited(|objects| objects[0]["spec"]["ports"][0]["port"] = json!(0))?,
            object: "Service lab/bad",
            field: "spec.ports[0].port",
        },
        Bad {
            what: "a slice of 100,000 addresses",
            text: edited(|objects| {
                let endpoint =
                    |n: u32| json!({ "addresses": [std::net::Ipv4Addr::from_bits(0x0a80_0000 + n)] });
                objects[1]["endpoints"] = (0..100_000).map(endpoint).collect();
            })?,
            object: "EndpointSlice lab/bad-0-ipv4",
            field: "endpoints",
        },
    ])
}
