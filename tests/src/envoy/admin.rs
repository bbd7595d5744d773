//! What a running Envoy says about itself.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::client::{Client, TRUSTED};

/// Envoy's admin interface.
#[derive(Clone, Debug)]
pub struct Admin {
    address: SocketAddr,
    client: Client,
}

impl Admin {
    pub(super) fn at(address: SocketAddr) -> Result<Self> {
        Ok(Self { address, client: Client::from(TRUSTED)? })
    }

    /// What stands at this path.
    pub fn get(&self, path: &str) -> Result<String> {
        let answer = self.client.get(&format!("http://{}{path}", self.address), &[])?;
        if answer.status != 200 {
            bail!("Envoy answers {} to {path}: {}", answer.status, answer.body);
        }
        Ok(answer.body)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.get("/ready").is_ok()
    }

    /// Its version, like `1.40.0`.
    pub fn version(&self) -> Result<String> {
        let info: Value = serde_json::from_str(&self.get("/server_info")?)?;
        // <commit>/<version>/<how it was built>
        let version = text(&info, "/version").and_then(|version| version.split('/').nth(1));
        version.map(str::to_owned).context("Envoy does not tell its version")
    }

    pub(super) fn listener(&self, name: &str) -> Result<Option<SocketAddr>> {
        let answer: Value = serde_json::from_str(&self.get("/listeners?format=json")?)?;
        let mut listeners =
            answer.pointer("/listener_statuses").and_then(Value::as_array).into_iter().flatten();
        let Some(listener) = listeners.find(|listener| text(listener, "/name") == Some(name)) else {
            return Ok(None);
        };
        let ip =
            text(listener, "/local_address/socket_address/address").context("the listener has no address")?;
        let port = listener.pointer("/local_address/socket_address/port_value").and_then(Value::as_u64);
        let port = port.context("the listener has no port")?;
        Ok(Some(SocketAddr::new(ip.parse()?, u16::try_from(port)?)))
    }

    /// The value of a counter or gauge by its full name; 0 while there is none.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let stats = self.get(&format!("/stats?filter=^{}$", name.replace('.', "\\.")))?;
        match stats.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")) {
            Some(value) => Ok(value.parse()?),
            None => Ok(0),
        }
    }

    /// The sum of a Prometheus metric over all series that have these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let stats = self.get("/stats/prometheus?filter=lanekeeper")?;
        let series = stats.lines().filter_map(|line| line.rsplit_once(' '));
        let matching = series.filter(|(series, _)| is_series(series, name, labels));
        matching.map(|(_, value)| Ok(value.parse::<u64>()?)).sum()
    }

    /// How many requests a limit has decided so in a lane, wherever the decision was made.
    pub fn decisions(&self, lane: &str, limit: &str, outcome: &str) -> Result<u64> {
        self.metric("lanekeeper_decisions_total", &[("lane", lane), ("limit", limit), ("outcome", outcome)])
    }
}

fn is_series(series: &str, name: &str, labels: &[(&str, &str)]) -> bool {
    let Some(rest) = series.strip_prefix(name) else { return false };
    let Some(given) = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return false };
    let given: Vec<&str> = given.split(',').collect();
    labels.iter().all(|(key, value)| given.contains(&format!("{key}=\"{value}\"").as_str()))
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}
