//! Where Redis is, and what shows that it is the right one.

use std::fs;
use std::path::{Path, PathBuf};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
    Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::sentinel::{Sentinels, Server};

/// The files that TLS needs, in PEM. They are read once, at the start.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Whose signature a server has to show. None: those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate, with those that lead to its CA, that is shown to servers, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why an address is none that Redis can be reached at.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It cannot be read.
    #[error("not a Redis address: {0}")]
    Url(#[source] RedisError),
    /// It names a database of a cluster.
    #[error("Redis Cluster has no other database than 0")]
    ClusterDatabase,
    /// It names Sentinels and no master.
    #[error("the name of the master follows the Sentinels: redis-sentinel://HOST:PORT,HOST:PORT/NAME")]
    NoMaster,
    /// It has no TLS to use the files for.
    #[error("certificates need an address that begins with `rediss`")]
    NoTls,
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// A file for certificates holds none.
    #[error("no certificate is in {0}")]
    NoCertificate(PathBuf),
    /// A file is not what it should be.
    #[error("no use can be made of the certificates: {0}")]
    Certificates(#[source] RedisError),
}

/// What is at an address.
pub(super) enum Place {
    One(Server),
    Cluster {
        /// How each node is spoken to.
        manner: ConnectionInfo,
        /// Some of the nodes.
        seeds: Vec<Address>,
    },
}

/// Where a node of a cluster listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    /// Reads `url` and the files that go with it.
    pub(super) fn read(url: &str, files: &TlsFiles) -> Result<Self, AddressError> {
        // Named, since the TLS library panics where it would have to choose. An error means that it is set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = read(files)?;
        let server = |url: &str| server(url, tls.as_ref());
        let (kind, scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => match scheme.split_once('-') {
                Some((scheme, kind)) => (kind, scheme, rest),
                None => ("", scheme, rest),
            },
            None => ("", "", url),
        };
        let (user, hosts) = rest.rsplit_once('@').map_or(("", rest), |(user, hosts)| (user, hosts));
        let at = if user.is_empty() { "" } else { "@" };
        match kind {
            "cluster" => {
                let nodes = hosts.split(',').map(|host| server(&format!("{scheme}://{user}{at}{host}")));
                Self::cluster(nodes.collect::<Result<_, _>>()?)
            }
            "sentinel" => {
                let (hosts, master) = hosts.split_once('/').ok_or(AddressError::NoMaster)?;
                let (name, database) = master.split_once('/').unwrap_or((master, "0"));
                if name.is_empty() {
                    return Err(AddressError::NoMaster);
                }
                let sentinels =
                    hosts.split(',').map(|host| server(&format!("{scheme}://{}", sentinel(host))));
                let sentinels = sentinels.collect::<Result<_, _>>()?;
                // The host is another one each time; only the manner counts.
                let manner = server(&format!("{scheme}://{user}{at}localhost/{database}"))?;
                Ok(Self::One(Server::Elected(Sentinels { sentinels, name: name.to_owned(), manner })))
            }
            _ => server(url).map(Server::Known).map(Self::One),
        }
    }

    fn cluster(nodes: Vec<ConnectionInfo>) -> Result<Self, AddressError> {
        if nodes.iter().any(|node| node.redis_settings().db() != 0) {
            return Err(AddressError::ClusterDatabase);
        }
        let seeds = nodes.iter().filter_map(|node| Address::read(&node.addr().to_string())).collect();
        let manner = nodes.into_iter().next().ok_or(AddressError::ClusterDatabase)?;
        Ok(Self::Cluster { manner, seeds })
    }
}

impl Address {
    /// Reads `HOST:PORT`, where a host of IPv6 stands without brackets, as nodes write it.
    pub(super) fn read(address: &str) -> Option<Self> {
        let (host, port) = address.rsplit_once(':')?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// Reads a host, empty where the server does not know it, and a port, as servers name others.
    pub(super) fn of_words(words: &[Value]) -> Option<Self> {
        let [host, port, ..] = words else { return None };
        let host = match host {
            Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
            Value::Nil => String::new(),
            _ => return None,
        };
        Some(Self { host, port: redis::from_redis_value_ref(port).ok()? })
    }

    /// The server here, spoken to in the manner of another one.
    pub(super) fn of(&self, manner: &ConnectionInfo) -> ConnectionInfo {
        let (host, port) = (self.host.clone(), self.port);
        let addr = match manner.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        manner.clone().set_addr(addr)
    }
}

/// Sentinel's own port, where none is named.
fn sentinel(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:26379") }
}

fn server(url: &str, tls: Option<&TlsCertificates>) -> Result<ConnectionInfo, AddressError> {
    let info = url.into_connection_info().map_err(AddressError::Url)?;
    // What this would say of the library is for humans only, and needs a permission more.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings);
    match (info.addr(), tls) {
        (ConnectionAddr::TcpTls { .. }, Some(tls)) => {
            let client = Client::build_with_tls(info, tls.clone()).map_err(AddressError::Certificates)?;
            Ok(client.get_connection_info().clone())
        }
        (_, Some(_)) => Err(AddressError::NoTls),
        (_, None) => Ok(info),
    }
}

fn read(files: &TlsFiles) -> Result<Option<TlsCertificates>, AddressError> {
    let root_cert = files.ca.as_deref().map(certificates).transpose()?;
    let client_tls = match &files.client {
        Some((cert, key)) => {
            Some(ClientTlsConfig { client_cert: certificates(cert)?, client_key: bytes(key)? })
        }
        None => None,
    };
    let is_used = root_cert.is_some() || client_tls.is_some();
    Ok(is_used.then_some(TlsCertificates { client_tls, root_cert }))
}

fn certificates(path: &Path) -> Result<Vec<u8>, AddressError> {
    let pem = bytes(path)?;
    let is_one = CertificateDer::pem_slice_iter(&pem).next().is_some();
    if is_one { Ok(pem) } else { Err(AddressError::NoCertificate(path.to_owned())) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, AddressError> {
    fs::read(path).map_err(|error| AddressError::File { path: path.to_owned(), error })
}
