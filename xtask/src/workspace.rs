//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cargo::cargo;
use crate::tools;

/// The repository and its target folder, wherever the user's settings put that.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let metadata = tools::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo's metadata is no JSON")?;
        let folder = |key: &str| {
            let folder = metadata.get(key).and_then(Value::as_str).map(PathBuf::from);
            folder.with_context(|| format!("cargo's metadata has no {key}"))
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// For what is fetched; kept until `cargo clean`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A path as a person in the repository would type it.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> impl std::fmt::Display + use<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
