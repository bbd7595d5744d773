//! The folders of `envoy/` that tests run as they are shipped.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A folder with an Envoy that holds a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// Limits, with a store.
    Demo,
    /// Breakers for what an application calls.
    Outbound,
    /// Bulkheads and breakers for what calls a service.
    Inbound,
}

impl Shipped {
    /// All of them.
    pub const ALL: [Self; 3] = [Shipped::Demo, Shipped::Outbound, Shipped::Inbound];

    /// Its `envoy.yaml`.
    pub fn envoy(self) -> Result<Value> {
        self.read("envoy.yaml")
    }

    /// Its `policy.yaml`.
    pub fn policy(self) -> Result<Value> {
        self.read("policy.yaml")
    }

    /// Its `upstream.yaml`: an Envoy that stands in for a service.
    pub fn upstream(self) -> Result<Value> {
        self.read("upstream.yaml")
    }

    /// What its listener with the filter is called.
    pub(super) fn listener(self) -> &'static str {
        match self {
            Shipped::Demo => "front",
            Shipped::Outbound => "outbound",
            Shipped::Inbound => "inbound",
        }
    }

    fn read(self, name: &str) -> Result<Value> {
        let folder = match self {
            Shipped::Demo => "demo",
            Shipped::Outbound => "outbound",
            Shipped::Inbound => "inbound",
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
        let path = root.join(folder).join(name);
        let yaml = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_saphyr::from_str(&yaml).with_context(|| format!("{} is no YAML", path.display()))
    }
}
