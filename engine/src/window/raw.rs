//! A window as it stands in a question to the shim.
//!
//! A named zone goes by its name and not by its table: then one database, the shim's, says where windows begin, and
//! nodes with older ones count in the same windows.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Algorithm, Offset, Timezone, Window, WindowError, Zone};
use crate::units::micros;

/// A window as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum RawWindow {
    SlidingWindow {
        limit: u32,
        per_ms: u64,
    },
    SlidingLog {
        limit: u32,
        per_ms: u64,
    },
    SlidingCounter {
        limit: u32,
        per_ms: u64,
    },
    FixedWindow {
        limit: u32,
        per_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset_min: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timezone: Option<String>,
    },
    TokenBucket {
        limit: u32,
        per_ms: u64,
        burst: u32,
    },
}

impl TryFrom<RawWindow> for Window {
    type Error = WindowError;

    fn try_from(raw: RawWindow) -> Result<Self, WindowError> {
        match raw {
            RawWindow::SlidingWindow { limit, per_ms } => {
                Window::new(limit, Duration::from_millis(per_ms), Algorithm::SlidingWindow)
            }
            RawWindow::SlidingLog { limit, per_ms } => {
                Window::new(limit, Duration::from_millis(per_ms), Algorithm::SlidingLog)
            }
            RawWindow::SlidingCounter { limit, per_ms } => {
                Window::new(limit, Duration::from_millis(per_ms), Algorithm::SlidingCounter)
            }
            RawWindow::FixedWindow { limit, per_ms, offset_min, timezone } => {
                let timezone = match (offset_min, timezone) {
                    (Some(minutes), None) => Offset::from_minutes(minutes)?.into(),
                    (None, Some(name)) => Zone::named(&name).ok_or(WindowError::Zone)?.into(),
                    _ => return Err(WindowError::Timezone),
                };
                Window::new(limit, Duration::from_millis(per_ms), Algorithm::FixedWindow { timezone })
            }
            RawWindow::TokenBucket { limit, per_ms, burst } => {
                let burst = NonZeroU32::new(burst).ok_or(WindowError::Burst)?;
                Window::new(limit, Duration::from_millis(per_ms), Algorithm::TokenBucket { burst })
            }
        }
    }
}

impl From<Window> for RawWindow {
    fn from(window: Window) -> Self {
        let (limit, per_ms) = (window.limit(), micros(window.per) / 1000);
        match window.algorithm {
            Algorithm::SlidingWindow => RawWindow::SlidingWindow { limit, per_ms },
            Algorithm::SlidingLog => RawWindow::SlidingLog { limit, per_ms },
            Algorithm::SlidingCounter => RawWindow::SlidingCounter { limit, per_ms },
            Algorithm::FixedWindow { timezone } => {
                let (offset_min, timezone) = match timezone {
                    Timezone::Offset(offset) => (Some(offset.minutes()), None),
                    Timezone::Zone(zone) => (None, Some(zone.name().to_owned())),
                };
                RawWindow::FixedWindow { limit, per_ms, offset_min, timezone }
            }
            Algorithm::TokenBucket { burst } => RawWindow::TokenBucket { limit, per_ms, burst: burst.get() },
        }
    }
}
