//! The server's certificate, and the authority that signed it.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// When a server's certificate is valid, seen from a client whose clock is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    #[default]
    Valid,
    /// It ended in the year 2000; a client whose clock runs ahead sees the same.
    Expired,
    /// It begins in the year 3000; a client whose clock is behind sees the same.
    NotYet,
}

/// An authority: clients that know it trust the certificates that it signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for the `names`, which may be addresses, and its key.
    fn sign(&self, names: &[String], validity: Validity) -> Result<(Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        (params.not_before, params.not_after) = match validity {
            Validity::Valid => (date_time_ymd(2020, 1, 1), date_time_ymd(3000, 1, 1)),
            Validity::Expired => (date_time_ymd(1999, 1, 1), date_time_ymd(2000, 1, 1)),
            Validity::NotYet => (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1)),
        };
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    /// The same as files have it: certificate and key.
    pub(super) fn sign_pem(&self, names: &[String]) -> Result<(String, String)> {
        let (certificate, key) = self.sign(names, Validity::Valid)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// What speaks TLS for the `names`. HTTP/1.1 only.
    pub(super) fn acceptor(&self, names: &[String], validity: Validity) -> Result<TlsAcceptor> {
        let (certificate, key) = self.sign(names, validity)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .context("the server's certificate")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Speaks TLS with a server of that authority.
pub(super) async fn connect(ca_pem: &str, server: IpAddr, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::from(server), stream).await?)
}
