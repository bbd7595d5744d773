//! What clients get to see.

use super::read::Node;
use super::{Body, Responses};

impl Default for Responses {
    /// The draft's headers, and a problem with status 429 for the rejected.
    fn default() -> Self {
        Self { draft_headers: true, legacy_headers: false, rejected_status: 429, body: Body::Problem }
    }
}

/// Reads `responses`.
pub(super) fn read(node: &Node<'_>) -> Option<Responses> {
    let fields = node.fields(&["headers", "rejected_status", "body"], &[])?;
    let default = Responses::default();
    let headers =
        fields.or("headers", (default.draft_headers, default.legacy_headers), |node| read_headers(&node));
    let rejected_status = fields.or("rejected_status", default.rejected_status, |node| {
        node.whole(400..=599).and_then(|status| u16::try_from(status).ok())
    });
    let body = fields.or("body", default.body, |node| {
        node.one_of(&[("problem", Body::Problem), ("json", Body::Json), ("none", Body::None)], &[])
    });
    let (draft_headers, legacy_headers) = headers?;
    Some(Responses { draft_headers, legacy_headers, rejected_status: rejected_status?, body: body? })
}

/// Whether the draft's and the legacy headers are written.
fn read_headers(node: &Node<'_>) -> Option<(bool, bool)> {
    if node.value().as_str() == Some("none") {
        return Some((false, false));
    }
    if !node.value().is_array() {
        return node.refuse("must be a list of draft and legacy, or the word none");
    }
    let words = node.set_of(2, |item| item.one_of(&[("draft", "draft"), ("legacy", "legacy")], &[]))?;
    Some((words.contains(&"draft"), words.contains(&"legacy")))
}
