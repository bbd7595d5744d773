//! What a limit asks of one request.

use crate::headers::Headers;
use crate::matcher::Target;
use crate::policy::{Cost, Limit, LimitVerdict, OnFailure};

impl Limit {
    pub(super) fn applies_to(&self, target: &Target<'_>) -> bool {
        self.matches.holds(target) && !self.except.as_ref().is_some_and(|except| except.holds(target))
    }

    pub(super) fn on_failure(&self) -> OnFailure {
        match &self.verdict {
            LimitVerdict::Count(count) => count.on_failure,
            LimitVerdict::TurnAway => OnFailure::Closed,
        }
    }
}

impl Cost {
    /// What a request with these headers costs.
    pub(super) fn of(&self, headers: &Headers) -> u32 {
        match self {
            Cost::Fixed(cost) => *cost,
            Cost::Header { name, max } => {
                let Some(text) = headers.first(name) else { return 1 };
                let number = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok());
                number.filter(|cost| (1..=*max).contains(cost)).unwrap_or(*max)
            }
        }
    }
}
