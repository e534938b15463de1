#![allow(missing_docs, clippy::unwrap_used)]
use serde_json::{Value, json};
use weir_tests::apiserver::ApiServer;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = ApiServer::start().await.unwrap();
    let big = |n: usize| (10 + n / 62500, (n / 250) % 250, 1 + n % 250);
    let managed: Vec<Value> = vec![json!({"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2024-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:ports":{".":{},"k:{\"port\":80}":{".":{},"f:name":{},"f:port":{},"f:protocol":{}}}}}})];
    for s in 0..10_000usize {
        let ip = format!("10.96.{}.{}", s / 250, 1 + s % 250);
        server.put(&json!({"apiVersion":"v1","kind":"Service","metadata":{"namespace":format!("ns-{}", s%100),"name":format!("service-{s}"),"managedFields":managed,"creationTimestamp":"2024-01-01T00:00:00Z"},
            "spec":{"clusterIP":ip,"clusterIPs":[ip],"type":"ClusterIP","selector":{"app":format!("a{s}")},"ports":[{"name":"http","port":80,"protocol":"TCP","targetPort":8080}]}})).unwrap();
        let eps: Vec<Value> = (0..10).map(|e| { let (a,b,c) = big(s*10+e); json!({"addresses":[format!("{}.{b}.{c}.{}", a, 1)],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":format!("node-{}", (s*10+e)%1000),"zone":"z1","targetRef":{"kind":"Pod","name":format!("pod-{s}-{e}"),"namespace":"x","uid":"6d9d1bd9-0000-0000-0000-000000000000"}})}).collect();
        server.put(&json!({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":format!("ns-{}", s%100),"name":format!("service-{s}-abcde"),"managedFields":managed,"labels":{"kubernetes.io/service-name":format!("service-{s}")}},"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":eps})).unwrap();
    }
    let path = std::env::args().nth(1).unwrap();
    std::fs::write(&path, server.kubeconfig()).unwrap();
    println!("ready");
    let mut line = String::new();
    let mut n = 0u32;
    loop {
        line.clear();
        let (l, r) = tokio::task::spawn_blocking(move || { let r = std::io::stdin().read_line(&mut line).unwrap_or(0); (line, r) }).await.unwrap();
        line = l;
        if r == 0 { break; }
        match line.trim() {
            "compact" => { server.compact(); server.drop_connections(); println!("compacted"); }
            _ => { n += 1; println!("{n}"); }
        }
    }
}
