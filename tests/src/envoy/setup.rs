//! Envoy's configuration for a test: the shipped one, with other ports, addresses and another policy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Envoy, Shipped, Verdict, WORKERS};
use crate::tools;

const STORE_CLUSTER: &str = "lanekeeper";
const LISTENER_TYPE: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const EXTENSION_TYPE: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
const WASM_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
/// The HTTP filters of a listener.
const FILTERS: &str = "/filter_chains/0/filters/0/typed_config/http_filters";
const PROTOCOLS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const PROTOCOLS_TYPE: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
// 96 KiB: the worst that the tests send is 64 KiB of headers, and Envoy's default is 60
const MAX_HEADERS_KIB: u32 = 96;

/// The filter before the router.
#[derive(Clone, Debug)]
enum Filter {
    /// Ours, as shipped.
    Shipped,
    None,
    Other(Value),
}

/// What an Envoy of a test is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    shipped: Shipped,
    upstream: SocketAddr,
    shims: Vec<SocketAddr>,
    policy: Option<Value>,
    filter: Filter,
    is_trapping: bool,
    code: Option<PathBuf>,
    is_by_ecds: bool,
    workers: u64,
    upstream_trailers: bool,
    websockets: bool,
    edit: Edit,
}

/// Changes the finished clusters and the finished listener.
pub type Edit = fn(clusters: &mut Value, listener: &mut Value);

impl Setup {
    /// Envoy as shipped in the demo, with the demo's policy, in front of this upstream; its store is nowhere.
    pub fn new(upstream: SocketAddr) -> Self {
        Self::shipped(Shipped::Demo, upstream)
    }

    /// The same of another folder.
    pub fn shipped(shipped: Shipped, upstream: SocketAddr) -> Self {
        Self {
            shipped,
            upstream,
            shims: Vec::new(),
            policy: None,
            filter: Filter::Shipped,
            is_trapping: false,
            code: None,
            is_by_ecds: false,
            workers: WORKERS,
            upstream_trailers: false,
            websockets: false,
            edit: |_, _| {},
        }
    }

    /// The cluster `lanekeeper` is here.
    pub fn store(self, address: SocketAddr) -> Self {
        self.shims([address])
    }

    /// The cluster `lanekeeper` has all of these.
    pub fn shims(self, addresses: impl Into<Vec<SocketAddr>>) -> Self {
        Self { shims: addresses.into(), ..self }
    }

    /// Another policy.
    pub fn policy(self, policy: Value) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Other code of the filter than what was built.
    pub fn code(self, file: PathBuf) -> Self {
        Self { code: Some(file), ..self }
    }

    /// The filter is discovered by itself (ECDS): a change of it leaves the listener and its connections as they are.
    pub fn by_ecds(self) -> Self {
        Self { is_by_ecds: true, ..self }
    }

    /// Without the filter: what Envoy does alone, to compare.
    pub fn unfiltered(self) -> Self {
        Self { filter: Filter::None, ..self }
    }

    /// With another HTTP filter in the place of ours, to compare.
    pub fn with_filter_instead(self, filter: Value) -> Self {
        Self { filter: Filter::Other(filter), ..self }
    }

    /// With a plugin that traps where a request has the header `x-lanekeeper-trap`.
    pub fn trapping(self) -> Self {
        Self { is_trapping: true, ..self }
    }

    /// With so many workers, each with a VM of its own.
    pub fn workers(self, workers: u64) -> Self {
        Self { workers, ..self }
    }

    /// Takes over trailers of an upstream that speaks HTTP/1.1, which Envoy drops unless told otherwise.
    pub fn upstream_trailers(self) -> Self {
        Self { upstream_trailers: true, ..self }
    }

    /// Lets requests be upgraded to WebSocket, which Envoy refuses unless told otherwise.
    pub fn websockets(self) -> Self {
        Self { websockets: true, ..self }
    }

    /// With a change of the shipped configuration that no other test needs.
    pub fn edited(self, edit: Edit) -> Self {
        Self { edit, ..self }
    }

    /// Starts it.
    pub fn start(self) -> Result<Envoy> {
        Envoy::start(self)
    }

    /// Asks Envoy whether it would start so.
    pub fn validate(&self) -> Result<Verdict> {
        super::validate(&self.configuration()?.whole()?)
    }

    pub(super) fn is_by_ecds(&self) -> bool {
        self.is_by_ecds
    }

    pub(super) fn worker_count(&self) -> u64 {
        self.workers
    }

    /// The listener with the filter.
    pub(super) fn listener(&self) -> &'static str {
        self.shipped.listener()
    }

    pub(super) fn configuration(&self) -> Result<Configuration> {
        let mut bootstrap = self.shipped.envoy()?;
        set_port(&mut bootstrap, "/admin/address", 0)?;
        let mut clusters = take(&mut bootstrap, "/static_resources/clusters")?;
        let upstream = named(&mut clusters, "upstream")?;
        set_endpoints(upstream, &[self.upstream])?;
        if self.upstream_trailers {
            let http1 = json!({"http_protocol_options": {"enable_trailers": true}});
            let options = json!({"@type": PROTOCOLS_TYPE, "explicit_http_config": http1});
            put(upstream, "typed_extension_protocol_options", json!({ PROTOCOLS: options }))?;
        }
        if !self.shims.is_empty() {
            set_endpoints(named(&mut clusters, STORE_CLUSTER)?, &self.shims)?;
        } else if self.shipped == Shipped::Demo {
            remove(&mut clusters, STORE_CLUSTER)?;
        }
        let mut listeners = take(&mut bootstrap, "/static_resources/listeners")?;
        let mut front = self.front(named(&mut listeners, self.listener())?.take())?;
        (self.edit)(&mut clusters, &mut front);
        *at(&mut bootstrap, "/static_resources")? = json!({"clusters": clusters});
        Ok(Configuration { bootstrap, front })
    }

    fn front(&self, mut listener: Value) -> Result<Value> {
        set_port(&mut listener, "/address", 0)?;
        let manager = at(&mut listener, "/filter_chains/0/filters/0/typed_config")?;
        put(manager, "max_request_headers_kb", json!(MAX_HEADERS_KIB))?;
        if self.websockets {
            put(manager, "upgrade_configs", json!([{"upgrade_type": "websocket"}]))?;
        }
        let filters = at(manager, "/http_filters")?;
        match &self.filter {
            Filter::Shipped => {}
            Filter::None => {
                remove(filters, "lanekeeper")?;
                return Ok(listener);
            }
            Filter::Other(other) => {
                *named(filters, "lanekeeper")? = other.clone();
                return Ok(listener);
            }
        }
        let plugin = at(named(filters, "lanekeeper")?, "/typed_config/config")?;
        let built = if self.is_trapping { "LANEKEEPER_TRAP_WASM" } else { "LANEKEEPER_PLUGIN_WASM" };
        let code = self.code.clone().map_or_else(|| tools::path(built), Ok)?;
        *at(plugin, "/vm_config/code/local/filename")? = json!(code);
        if let Some(policy) = &self.policy {
            *at(plugin, "/configuration/value")? = json!(policy.to_string());
        }
        Ok(listener)
    }
}

/// The finished configuration, still in its two parts.
pub(super) struct Configuration {
    bootstrap: Value,
    front: Value,
}

impl Configuration {
    /// All in one.
    pub(super) fn whole(&self) -> Result<Value> {
        let mut bootstrap = self.bootstrap.clone();
        put(at(&mut bootstrap, "/static_resources")?, "listeners", json!([self.front]))?;
        Ok(bootstrap)
    }

    /// The part that never changes, with the listeners to come from this file.
    pub(super) fn watching(&self, listeners: &Path) -> Result<Value> {
        let mut bootstrap = self.bootstrap.clone();
        let source = json!({"resource_api_version": "V3", "path_config_source": {"path": listeners}});
        put(&mut bootstrap, "dynamic_resources", json!({"lds_config": source}))?;
        Ok(bootstrap)
    }

    /// What that file holds. With another file in `filter`, our filter comes from there.
    pub(super) fn listeners(&self, filter: Option<&Path>) -> Result<Value> {
        let mut front = self.front.clone();
        if let Some(file) = filter {
            let ours = named(at(&mut front, FILTERS)?, "lanekeeper")?;
            let source = json!({"resource_api_version": "V3", "path_config_source": {"path": file}});
            let discovery = json!({"config_source": source, "type_urls": [WASM_TYPE]});
            *ours = json!({"name": "lanekeeper", "config_discovery": discovery});
        }
        put(&mut front, "@type", json!(LISTENER_TYPE))?;
        Ok(json!({"resources": [front]}))
    }

    /// What that other file holds.
    pub(super) fn filter(&self) -> Result<Value> {
        let mut front = self.front.clone();
        let mut ours = named(at(&mut front, FILTERS)?, "lanekeeper")?.take();
        put(&mut ours, "@type", json!(EXTENSION_TYPE))?;
        Ok(json!({"resources": [ours]}))
    }
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value.pointer_mut(pointer).with_context(|| format!("the shipped envoy.yaml has no {pointer}"))
}

fn take(value: &mut Value, pointer: &str) -> Result<Value> {
    at(value, pointer).map(Value::take)
}

fn put(object: &mut Value, key: &str, value: Value) -> Result<()> {
    object.as_object_mut().with_context(|| format!("no object to hold {key}"))?.insert(key.to_owned(), value);
    Ok(())
}

fn named<'a>(list: &'a mut Value, name: &str) -> Result<&'a mut Value> {
    let mut items = list.as_array_mut().into_iter().flatten();
    items.find(|item| is_named(item, name)).with_context(|| format!("the shipped envoy.yaml names no {name}"))
}

fn remove(list: &mut Value, name: &str) -> Result<()> {
    named(list, name)?;
    list.as_array_mut().into_iter().for_each(|items| items.retain(|item| !is_named(item, name)));
    Ok(())
}

fn is_named(item: &Value, name: &str) -> bool {
    item.get("name").and_then(Value::as_str) == Some(name)
}

fn set_port(value: &mut Value, address: &str, port: u16) -> Result<()> {
    *at(value, &format!("{address}/socket_address/port_value"))? = json!(port);
    Ok(())
}

/// The first endpoint as it is shipped, at each of these addresses.
fn set_endpoints(cluster: &mut Value, addresses: &[SocketAddr]) -> Result<()> {
    let endpoints = at(cluster, "/load_assignment/endpoints/0/lb_endpoints")?;
    let shipped = at(endpoints, "/0")?.clone();
    let moved = |address: &SocketAddr| {
        let mut endpoint = shipped.clone();
        *at(&mut endpoint, "/endpoint/address/socket_address/address")? = json!(address.ip());
        set_port(&mut endpoint, "/endpoint/address", address.port())?;
        Ok(endpoint)
    };
    *endpoints = addresses.iter().map(moved).collect::<Result<Value>>()?;
    Ok(())
}
