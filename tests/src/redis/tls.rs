//! A Redis behind TLS, and the certificates that go with it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::Redis;
use crate::port::free_address;
use crate::wait;

/// A CA in a folder of its own, and what it signed.
pub struct Ca {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A new one, which nobody trusts yet.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lanekeeper-ca-").tempdir()?;
        let mut params = CertificateParams::default();
        // A certificate of the same name would be taken for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self { folder, issuer: Issuer::new(params, key) })
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for `host`, and its key.
    pub fn sign(&self, host: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &self.issuer)?;
        let files = (
            self.folder.path().join(format!("{host}.pem")),
            self.folder.path().join(format!("{host}-key.pem")),
        );
        fs::write(&files.0, certificate.pem())?;
        fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }

    /// What a server that listens at `address` as `host` is started with.
    pub(super) fn settings(&self, host: &str, address: SocketAddr) -> Result<Vec<String>> {
        let (certificate, key) = self.sign(host)?;
        let settings = [
            ("--tls-port", address.port().to_string()),
            ("--tls-ca-cert-file", self.file().display().to_string()),
            ("--tls-cert-file", certificate.display().to_string()),
            ("--tls-key-file", key.display().to_string()),
        ];
        Ok(settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect())
    }
}

/// A Redis that talks TLS with whoever shows a certificate of its CA, and plainly through its socket.
pub struct TlsRedis {
    /// The server.
    pub redis: Redis,
    /// Where it listens with TLS.
    pub address: SocketAddr,
}

impl TlsRedis {
    /// Starts one whose certificate, signed by `ca`, is for `host`.
    pub fn start(ca: &Ca, host: &str) -> Result<Self> {
        Self::start_with(ca, host, &[])
    }

    /// Starts one that is a whole cluster by itself.
    pub fn start_cluster(ca: &Ca, host: &str) -> Result<Self> {
        let bus = free_address()?.port().to_string();
        let cluster = [("--cluster-enabled", "yes"), ("--cluster-port", &bus), ("--tls-cluster", "yes")];
        let tls = Self::start_with(ca, host, &cluster)?;
        let mut connection = tls.redis.connect()?;
        redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).exec(&mut connection)?;
        wait::until("a cluster of one", || {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection)?;
            Ok(info.contains("cluster_state:ok").then_some(()))
        })?;
        Ok(tls)
    }

    fn start_with(ca: &Ca, host: &str, more: &[(&str, &str)]) -> Result<Self> {
        let address = free_address()?;
        let more = more.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]);
        let bind = ["--bind".to_owned(), "127.0.0.1".to_owned()];
        let settings = bind.into_iter().chain(ca.settings(host, address)?).chain(more).collect();
        Ok(Self { redis: Redis::start_with(settings)?, address })
    }
}
