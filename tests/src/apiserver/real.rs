//! A real kube-apiserver on a real etcd, from the folder that `KUBEBUILDER_ASSETS` names (setup-envtest fills one, and
//! so does a Kubernetes release with an etcd beside it). What holds for the test server must hold for it.
//!
//! Everything listens on the loopback address. Both programs end with the value.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::identity::Authority;
use super::{ADMIN_TOKEN, kubeconfig};

/// From nothing to an answer.
const START: Duration = Duration::from_secs(120);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Assets {
    folder: PathBuf,
}

impl Assets {
    /// From the environment; `None` where nobody says.
    ///
    /// # Errors
    /// The folder lacks a program.
    pub fn find() -> Result<Option<Self>> {
        let Some(folder) = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else { return Ok(None) };
        for program in ["etcd", "kube-apiserver"] {
            let path = folder.join(program);
            ensure!(path.is_file(), "KUBEBUILDER_ASSETS: there is no {}", path.display());
        }
        Ok(Some(Self { folder }))
    }
}

/// A program that runs; killed when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(program: &Path, arguments: &[String], log: PathBuf) -> Result<Self> {
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// What it said last.
    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, or about to be: either way there is nothing to be done about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One API server. Several may stand on one etcd.
#[derive(Debug)]
pub struct RealServer {
    assets: Assets,
    directory: TempDir,
    ca_pem: String,
    etcd_port: u16,
    port: u16,
    generation: u32,
    // The API server first: it ends before what it stands on.
    server: Option<Process>,
    etcd: Option<Process>,
}

impl RealServer {
    /// A new one, with an empty etcd of its own. [`ADMIN_TOKEN`] may do everything.
    ///
    /// # Errors
    /// It does not start; with what it said last.
    pub async fn start(assets: &Assets) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("weir-apiserver-").tempdir()?;
        let authority = Authority::new()?;
        let (certificate, key) = authority.sign_pem(&[Ipv4Addr::LOCALHOST.to_string()])?;
        let accounts = KeyPair::generate()?;
        let files = [
            ("tls.crt", certificate),
            ("tls.key", key),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            ("tokens", format!("{ADMIN_TOKEN},admin,admin,system:masters\n")),
        ];
        for (name, text) in files {
            fs::write(directory.path().join(name), text)?;
        }
        let mut server = Self {
            assets: assets.clone(),
            directory,
            ca_pem: authority.pem().to_owned(),
            etcd_port: free_port()?,
            port: free_port()?,
            generation: 0,
            server: None,
            etcd: None,
        };
        server.start_etcd()?;
        server.revive().await?;
        Ok(server)
    }

    /// Adds a user. Takes effect when the server is started again.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add_user(&self, token: &str, user: &str) -> Result<()> {
        let path = self.directory.path().join("tokens");
        let known = fs::read_to_string(&path)?;
        Ok(fs::write(path, format!("{known}{token},{user},{user}\n"))?)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts the API server again, at the same address.
    ///
    /// # Errors
    /// It does not answer; with what it said last.
    pub async fn revive(&mut self) -> Result<()> {
        self.server = None;
        let process = self.run_server(self.port, "apiserver.log")?;
        let process = self.wait_ready(process, self.port).await?;
        self.server = Some(process);
        Ok(())
    }

    /// Runs `work` while another API server stands on the same etcd, at the address that `work` gets.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn beside<F: Future<Output = ()>>(&self, work: impl FnOnce(SocketAddr) -> F) -> Result<()> {
        let port = free_port()?;
        let process = self.run_server(port, "beside.log")?;
        let process = self.wait_ready(process, port).await?;
        work(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        drop(process);
        Ok(())
    }

    /// All data is gone, as after a restore that went wrong; the same certificates.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn lose_data(&mut self) -> Result<()> {
        self.server = None;
        self.etcd = None;
        self.generation += 1;
        self.start_etcd()?;
        self.revive().await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The authority that clients must trust.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.ca_pem.clone()
    }

    /// For whoever has this token.
    #[must_use]
    pub fn kubeconfig_of(&self, token: &str) -> String {
        kubeconfig(&format!("https://{}", self.address()), &self.ca_pem, token)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let (client, peer) = (local(self.etcd_port), local(free_port()?));
        let data = self.directory.path().join(format!("etcd-{}", self.generation));
        let arguments = [
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        let log = self.directory.path().join("etcd.log");
        self.etcd = Some(Process::start(&self.assets.folder.join("etcd"), &arguments, log)?);
        Ok(())
    }

    fn run_server(&self, port: u16, log: &str) -> Result<Process> {
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        let arguments = [
            format!("--etcd-servers={}", local(self.etcd_port)),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", file("tls.crt")),
            format!("--tls-private-key-file={}", file("tls.key")),
            format!("--cert-dir={}", file("generated")),
            format!("--token-auth-file={}", file("tokens")),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/15".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // There is nobody who would make the account.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        Process::start(
            &self.assets.folder.join("kube-apiserver"),
            &arguments,
            self.directory.path().join(log),
        )
    }

    async fn wait_ready(&self, mut process: Process, port: u16) -> Result<Process> {
        let begun = Instant::now();
        while let Err(error) = self.ask_ready(port).await {
            if let Some(status) = process.child.try_wait()? {
                bail!("kube-apiserver ended ({status}):\n{}", process.last_words());
            }
            if begun.elapsed() > START {
                return Err(error.context(format!("not ready within {START:?}:\n{}", process.last_words())));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(process)
    }

    /// Whether it says that it is ready.
    async fn ask_ready(&self, port: u16) -> Result<()> {
        let name = Ipv4Addr::LOCALHOST;
        let stream = TcpStream::connect((name, port)).await?;
        let mut stream = super::identity::connect(&self.ca_pem, name.into(), stream).await?;
        let request = format!("GET /readyz HTTP/1.0\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 64];
        let length = timeout(Duration::from_secs(5), stream.read(&mut answer)).await??;
        let answer = String::from_utf8_lossy(&answer[..length]);
        ensure!(answer.split(' ').nth(1) == Some("200"), "{answer}");
        Ok(())
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// One that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
