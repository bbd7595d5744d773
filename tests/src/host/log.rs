//! What the filter logged.

use super::VmId;

/// Levels, from chatty to grave, as the ABI numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// For following single steps.
    Trace,
    /// For finding faults.
    Debug,
    /// Worth knowing. Envoy's default.
    Info,
    /// Not as it should be.
    Warn,
    /// Failed.
    Error,
    /// The VM is about to fail.
    Critical,
}

impl Level {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        use Level::{Critical, Debug, Error, Info, Trace, Warn};
        [Trace, Debug, Info, Warn, Error, Critical].get(number as usize).copied()
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Who wrote it.
    pub vm: VmId,
    /// How grave it is.
    pub level: Level,
    /// What it says; what is not UTF-8 in it is replaced.
    pub text: String,
}
