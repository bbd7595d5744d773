//! What may be a key of the store: of questions, of returns and of reports alike.

use super::{MAX_KEY_BYTES, MAX_SHARDS, MAX_WINDOWS};
use crate::window::Window;

/// Whether a key in the store, over so many shards and in these windows, is one. Else the field and what it may be.
pub(super) fn check_store_key(
    key: &str,
    shards: u16,
    windows: &[Window],
) -> Result<(), (&'static str, String)> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(("key", format!("1 to {MAX_KEY_BYTES} bytes are allowed")));
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(("key", "only printable ASCII without spaces is allowed".into()));
    }
    if shards == 0 || shards > MAX_SHARDS {
        return Err(("shards", format!("1 to {MAX_SHARDS} are allowed")));
    }
    if windows.is_empty() || windows.len() > MAX_WINDOWS {
        return Err(("windows", format!("1 to {MAX_WINDOWS} are allowed")));
    }
    // the first part is the largest, the last one the smallest
    let first_and_last = |window: &Window| window.part(shards, 0).and(window.part(shards, shards - 1));
    match windows.iter().find_map(|window| first_and_last(window).err()) {
        Some(error) => Err(("shards", format!("a part of a window cannot be counted: {error}"))),
        None => Ok(()),
    }
}
