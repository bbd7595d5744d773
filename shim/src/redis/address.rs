//! Where Redis is, and what shows that it is the right one.

use std::fs;
use std::path::{Path, PathBuf};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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

/// A client for the one server at `url`.
pub(super) fn client(url: &str, tls: &TlsFiles) -> Result<Client, AddressError> {
    // Named, since the TLS library panics where it would have to choose. An error means that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let info = url.into_connection_info().map_err(AddressError::Url)?;
    // What this would say of the library is for humans only, and needs a permission more.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    with_tls(info.set_redis_settings(settings), read(tls)?.as_ref())
}

fn with_tls(info: ConnectionInfo, tls: Option<&TlsCertificates>) -> Result<Client, AddressError> {
    match (info.addr(), tls) {
        (ConnectionAddr::TcpTls { .. }, Some(tls)) => {
            Client::build_with_tls(info, tls.clone()).map_err(AddressError::Certificates)
        }
        (_, Some(_)) => Err(AddressError::NoTls),
        (_, None) => Client::open(info).map_err(AddressError::Url),
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
