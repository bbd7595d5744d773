//! An HTTP client that chooses where it comes from.
//!
//! All of 127.0.0.0/8 is this machine, so a client that binds 127.0.0.9 is, to Envoy, another client than one that
//! binds 127.0.0.1. That is how tests play a sender whom the policy does not trust.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::blocking;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// The address that the demo's policy trusts.
pub const TRUSTED: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// An address that no policy of the tests trusts.
pub const UNTRUSTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

// Far above what any answer takes: a request that hangs is a failure with a name.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client with connections of its own, which are kept.
#[derive(Clone, Debug)]
pub struct Client(blocking::Client);

impl Client {
    /// Comes from this address.
    pub fn from(address: Ipv4Addr) -> Result<Self> {
        Self::build(builder(address))
    }

    /// Opens a new connection for each request, so that Envoy spreads them over its workers.
    pub fn unkept(address: Ipv4Addr) -> Result<Self> {
        Self::build(builder(address).pool_max_idle_per_host(0))
    }

    /// Speaks HTTP/2, as gRPC does.
    pub fn http2(address: Ipv4Addr) -> Result<Self> {
        Self::build(builder(address).http2_prior_knowledge())
    }

    fn build(builder: blocking::ClientBuilder) -> Result<Self> {
        builder.build().map(Client).context("cannot make an HTTP client")
    }

    /// GET with these headers.
    pub fn get(&self, url: &str, headers: &[(&str, &[u8])]) -> Result<Answer> {
        self.send(self.0.get(url), headers)
    }

    /// POST with these headers and this body.
    pub fn post(&self, url: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> Result<Answer> {
        self.send(self.0.post(url).body(body), headers)
    }

    /// POST, and resets the stream when the answer's headers have come.
    pub fn abandon(&self, url: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> Result<()> {
        drop(self.begin(self.0.post(url).body(body), headers)?);
        Ok(())
    }

    fn send(&self, request: blocking::RequestBuilder, headers: &[(&str, &[u8])]) -> Result<Answer> {
        let response = self.begin(request, headers)?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text()?,
        })
    }

    fn begin(
        &self,
        request: blocking::RequestBuilder,
        headers: &[(&str, &[u8])],
    ) -> Result<blocking::Response> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value)?);
        }
        Ok(request.headers(map).send()?)
    }
}

fn builder(address: Ipv4Addr) -> blocking::ClientBuilder {
    blocking::Client::builder().local_address(IpAddr::V4(address)).timeout(TIMEOUT).no_proxy()
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: String,
}

impl Answer {
    /// The first value of a header, if there is one that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What is left: `r` of the first item of `RateLimit`.
    pub fn remaining(&self) -> Option<u64> {
        let item = self.header("ratelimit")?.split(',').next()?;
        item.split(';').find_map(|parameter| parameter.trim().strip_prefix("r="))?.parse().ok()
    }

    /// The name of the first item of `RateLimit`, without its quotes.
    pub fn limit(&self) -> Option<&str> {
        Some(self.header("ratelimit")?.split(';').next()?.trim().trim_matches('"'))
    }

    /// How the request was decided without the store: `local`, `open` or `closed`.
    pub fn fallback(&self) -> Option<&str> {
        self.header("x-lanekeeper-fallback")
    }
}
