//! Names of VMs.

use std::fmt;

/// Names a VM of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmId {
    /// Tries a configuration and is gone.
    Canary,
    /// On the main thread: it ticks, and has no streams.
    Main,
    /// On a worker's thread.
    Worker(usize),
}

impl VmId {
    /// 0 for the canary and the main thread, then the workers.
    pub(super) fn number(self) -> u64 {
        match self {
            VmId::Canary | VmId::Main => 0,
            VmId::Worker(index) => index as u64 + 1,
        }
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VmId::Canary => f.write_str("canary"),
            VmId::Main => f.write_str("main thread"),
            VmId::Worker(index) => write!(f, "worker {index}"),
        }
    }
}
