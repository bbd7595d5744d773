//! Breakers: what keeps calls from an upstream that fails, one for each command and lane.

mod settings;

pub use settings::{Backoff, Control, Failures, Settings, SlowCall};
