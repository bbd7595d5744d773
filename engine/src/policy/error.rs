//! What is wrong with a policy, said so that it can be mended without a second look at the manual.

use std::fmt;

/// One error of a policy, or what is likely one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyError {
    /// Where: `rate_limits.ads.windows[0].per`. Empty for the document itself.
    pub path: String,
    /// What stands there, as JSON, shortened; empty when nothing does.
    pub value: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "policy" } else { &self.path };
        match self.value.as_str() {
            "" => write!(f, "{path}: {}", self.problem),
            value => write!(f, "{path}: {value}: {}", self.problem),
        }
    }
}

impl std::error::Error for PolicyError {}
