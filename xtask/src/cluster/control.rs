//! The control plane's programs and their arguments: pure.

use super::pki;
use super::plan::{API_PORT, CLUSTER_CIDRS, Room, SERVICE_CIDRS};
use super::service::Service;

/// Where the API server finds etcd, in their own namespace.
const ETCD: &str = "http://127.0.0.1:2379";
/// What is written there is gone with the cluster: a memory file system.
const ETCD_DATA: &str = "/run/etcd";

/// What the first process of the control plane starts.
pub(super) fn services() -> Vec<Service> {
    vec![
        Service::new("etcd", etcd()),
        Service::new("kube-apiserver", api_server()),
        Service::new("kube-controller-manager", controllers()),
        Service::new("kube-scheduler", scheduler()),
    ]
}

fn etcd() -> Vec<String> {
    [
        format!("--data-dir={ETCD_DATA}"),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
    .to_vec()
}

fn api_server() -> Vec<String> {
    let [address, _] = Room::Control.addresses();
    let mut arguments = vec![
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={address}"),
        "--bind-address=::".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        // The agents' pods have host namespaces and capabilities; e2e's, too.
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
        "--v=1".to_owned(),
    ];
    arguments.extend(api_server_files().map(|(flag, file)| format!("--{flag}={file}")));
    arguments
}

fn api_server_files() -> [(&'static str, String); 7] {
    [
        ("client-ca-file", file(pki::CA)),
        ("tls-cert-file", file(&format!("{}.crt", pki::API_SERVER))),
        ("tls-private-key-file", file(&format!("{}.key", pki::API_SERVER))),
        ("kubelet-client-certificate", file(&format!("{}.crt", pki::KUBELET_CLIENT))),
        ("kubelet-client-key", file(&format!("{}.key", pki::KUBELET_CLIENT))),
        ("service-account-key-file", file(&format!("{}.pub", pki::SERVICE_ACCOUNTS))),
        ("service-account-signing-key-file", file(&format!("{}.key", pki::SERVICE_ACCOUNTS))),
    ]
}

fn controllers() -> Vec<String> {
    vec![
        format!("--kubeconfig={}", file("kube-controller-manager.conf")),
        format!("--service-account-private-key-file={}", file(&format!("{}.key", pki::SERVICE_ACCOUNTS))),
        format!("--root-ca-file={}", file(pki::CA)),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        // The nodes are made with their networks, for which there are routes.
        "--allocate-node-cidrs=false".to_owned(),
        format!("--cluster-cidr={CLUSTER_CIDRS}"),
        format!("--service-cluster-ip-range={SERVICE_CIDRS}"),
        "--v=1".to_owned(),
    ]
}

fn scheduler() -> Vec<String> {
    let config = file("kube-scheduler.conf");
    vec![
        format!("--kubeconfig={config}"),
        // Instead of asking, at its start, for a ConfigMap that may not be there yet.
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--authentication-tolerate-lookup-failure=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--v=1".to_owned(),
    ]
}

fn file(name: &str) -> String {
    format!("/etc/kubernetes/{name}")
}

/// Every file that an argument names.
#[cfg(test)]
pub(super) fn files() -> Vec<String> {
    let mut files: Vec<_> = services()
        .iter()
        .flat_map(|service| service.arguments.iter())
        .filter_map(|argument| argument.split_once('='))
        .map(|(_, value)| value.to_owned())
        .filter(|value| value.starts_with("/etc/"))
        .collect();
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::super::plan::API_SERVICE;
    use super::*;

    #[test]
    fn the_api_server_s_own_service_is_in_its_range() {
        assert!(SERVICE_CIDRS.starts_with("10.96.0.0/16"));
        assert_eq!(API_SERVICE.octets(), [10, 96, 0, 1]);
        assert!(files().len() > 8, "{:?}", files());
    }
}
