//! Who is who in the cluster: one authority, a certificate for each, and kubeconfigs that carry them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use serde_json::{Value, json};

use super::plan::{API_PORT, API_SERVICE, Room};

/// Who may do everything.
const MASTERS: &str = "system:masters";
/// The files of the control plane, below its `/etc/kubernetes`.
pub(super) const CA: &str = "ca.crt";
/// With its key in `apiserver.key`.
pub(super) const API_SERVER: &str = "apiserver";
/// The API server, as kubelets see it.
pub(super) const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
/// What tokens of service accounts are signed with.
pub(super) const SERVICE_ACCOUNTS: &str = "service-accounts";

/// The cluster's authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    /// A new one, known to nobody yet.
    pub(super) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, CONTROL_NAME);
        limit(&mut params);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A client: `name` is the user, `group` its group.
    fn client(&self, name: &str, group: &str) -> Result<Identity> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// The API server, by all names and addresses that anybody dials.
    fn server(&self) -> Result<Identity> {
        let mut names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
            .map(str::to_owned)
            .to_vec();
        names.push("kubernetes.default.svc.cluster.local".to_owned());
        names.extend(Room::Control.addresses().map(|address| address.to_string()));
        names.extend([IpAddr::V4(API_SERVICE).to_string(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        limit(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// What the control plane keeps in `folder`, its `/etc/kubernetes`.
    pub(super) fn write_control(&self, folder: &Path) -> Result<()> {
        write(&folder.join(CA), &self.certificate)?;
        let pairs = [(API_SERVER, self.server()?), (KUBELET_CLIENT, self.client("kube-apiserver", MASTERS)?)];
        for (name, identity) in pairs {
            write(&folder.join(format!("{name}.crt")), &identity.certificate)?;
            write(&folder.join(format!("{name}.key")), &identity.key)?;
        }
        let key = KeyPair::generate()?;
        write(&folder.join(format!("{SERVICE_ACCOUNTS}.key")), &key.serialize_pem())?;
        write(&folder.join(format!("{SERVICE_ACCOUNTS}.pub")), &key.public_key_pem())?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let config = self.kubeconfig(&format!("system:{name}"), &format!("system:{name}"))?;
            write(&folder.join(format!("{name}.conf")), &config)?;
        }
        Ok(())
    }

    /// What a node keeps in `folder`, its `/etc/kubernetes`: as kubeadm has it.
    pub(super) fn write_node(&self, node: Room, folder: &Path) -> Result<()> {
        write(&folder.join(CA), &self.certificate)?;
        let config = self.kubeconfig(&format!("system:node:{node}"), "system:nodes")?;
        write(&folder.join("kubelet.conf"), &config)
    }

    /// The kubeconfig of whoever may do everything.
    pub(super) fn write_admin(&self, path: &Path) -> Result<()> {
        write(path, &self.kubeconfig("kubernetes-admin", MASTERS)?)
    }

    fn kubeconfig(&self, user: &str, group: &str) -> Result<String> {
        let identity = self.client(user, group)?;
        let text = serde_json::to_string_pretty(&kubeconfig(&self.certificate, user, &identity))?;
        Ok(text + "\n")
    }
}

/// The authority's name, and the cluster's in kubeconfigs.
const CONTROL_NAME: &str = super::plan::CONTROL;

/// JSON, which is YAML too.
fn kubeconfig(authority: &str, user: &str, identity: &Identity) -> Value {
    let [server, _] = Room::Control.addresses();
    let data = |pem: &str| BASE64_STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": CONTROL_NAME,
            "cluster": {
                "server": format!("https://{server}:{API_PORT}"),
                "certificate-authority-data": data(authority),
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": data(&identity.certificate),
                "client-key-data": data(&identity.key),
            },
        }],
        "contexts": [{ "name": CONTROL_NAME, "context": { "cluster": CONTROL_NAME, "user": user } }],
        "current-context": CONTROL_NAME,
    })
}

/// Longer than any cluster of this kind lives.
fn limit(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
}

/// For the owner's eyes only, from the first byte on.
fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_kubeconfig_carries_all_that_a_client_needs_and_is_nobody_else_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        Authority::new().unwrap().write_admin(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://198.18.0.1:6443");
        let decode = |value: &Value| {
            String::from_utf8(BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
        };
        let authority = decode(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
        assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"), "{authority}");
        let key = decode(&config["users"][0]["user"]["client-key-data"]);
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{key}");
    }

    #[test]
    fn the_control_plane_finds_every_file_that_it_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        Authority::new().unwrap().write_control(folder.path()).unwrap();
        for argument in super::super::control::files() {
            let name = argument.strip_prefix("/etc/kubernetes/").unwrap();
            assert!(folder.path().join(name).is_file(), "{name}");
        }
    }
}
