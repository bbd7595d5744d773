//! Names: of lanes, limits, keys and commands, which stand in metric names and store keys, and of headers.

use super::read::Node;
use super::words::did_you_mean;

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// Headers that Envoy or a tracer lives on: without them, or with a flag's value in them, they could not work.
const TAKEN: [&str; 20] = [
    "b3",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "grpc-timeout",
    "host",
    "keep-alive",
    "proxy-connection",
    "sw8",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade",
    "via",
    "x-client-trace-id",
    "x-request-id",
];
const TAKEN_PREFIXES: [&str; 2] = ["x-envoy-", "x-forwarded-"];

/// The carrier that speaks the grammar of a header that has one of its own.
fn carrier_of(header: &str) -> Option<&'static str> {
    match header {
        "baggage" => Some("baggage"),
        "sw8-correlation" => Some("skywalking"),
        "tracestate" => Some("tracestate"),
        _ => header.starts_with("uberctx-").then_some("jaeger_baggage"),
    }
}

/// Whether `name` may name a lane, a limit or a key.
fn is_name(name: &str) -> bool {
    is_command_name(name) && !name.contains('.')
}

/// Whether `name` may name a command: dots may stand in it.
fn is_command_name(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    begins && name.len() <= MAX_NAME && name.bytes().all(inner)
}

/// Whether `text` is a token of RFC 9110.
fn is_token(text: &str) -> bool {
    let special = |b| b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || special(b))
}

/// A name the operator gave to the entry at `node`.
pub(super) fn entry_name(name: &str, node: &Node<'_>) -> Option<()> {
    node.demand(
        is_name(name),
        format_args!(
            "needs another name: 1 to {MAX_NAME} letters, digits, _ or -, and a letter or digit first"
        ),
    )
}

/// The name of a command that the operator gave to the entry at `node`.
pub(super) fn command_entry_name(command: &str, node: &Node<'_>) -> Option<()> {
    node.demand(
        is_command_name(command),
        format_args!(
            "needs another name: the command's, of 1 to {MAX_NAME} letters, digits, _, - or dots, and a letter or digit \
             first; in a lane, <lane>.<command>"
        ),
    )
}

impl<'a> Node<'a> {
    /// A name as of lanes, limits and keys.
    pub(super) fn name(&self) -> Option<&'a str> {
        let name = self.text()?;
        let problem =
            format_args!("must be 1 to {MAX_NAME} letters, digits, _ or -, and begin with a letter or digit");
        self.demand(is_name(name), problem).map(|()| name)
    }

    /// The name of a command.
    pub(super) fn command_name(&self) -> Option<&'a str> {
        let name = self.text()?;
        let problem = format_args!(
            "must be 1 to {MAX_NAME} letters, digits, _, - or dots, and begin with a letter or digit"
        );
        self.demand(is_command_name(name), problem).map(|()| name)
    }

    /// The name of a header, lower-case as it travels in HTTP/2.
    pub(super) fn header_name(&self) -> Option<String> {
        let name = self.text()?;
        if let Some(pseudo) = name.strip_prefix(':') {
            let hint = match pseudo {
                "path" => ": `path` says what must hold for the path",
                "method" => ": `methods` and `method` stand for the method",
                "authority" => ": `host` stands for the authority in keys",
                _ => "",
            };
            return self.refuse(format_args!("must not be a pseudo header{hint}"));
        }
        self.demand(is_token(name), "must be a header's name: letters, digits and !#$%&'*+-.^_`|~")?;
        let lower = name.to_ascii_lowercase();
        self.demand(lower == name, format_args!("must be lower-case: `{lower}`"))?;
        Some(lower)
    }

    /// The name of a header that may be removed and written, as a lane's flag is.
    pub(super) fn own_header_name(&self) -> Option<String> {
        let name = self.header_name()?;
        if let Some(carrier) = carrier_of(&name) {
            return self.refuse(format_args!("has a grammar of its own: use {{{carrier}: …}}"));
        }
        let taken = TAKEN.contains(&name.as_str()) || TAKEN_PREFIXES.iter().any(|p| name.starts_with(p));
        self.demand(!taken, "must be a header of your own: Envoy or tracers live on this one")?;
        Some(name)
    }

    /// A token of RFC 9110, as the keys of W3C baggage are.
    pub(super) fn token(&self) -> Option<String> {
        let text = self.text()?;
        let problem = "must be a token: letters, digits and !#$%&'*+-.^_`|~";
        self.demand(is_token(text) && text.len() <= 256, problem)?;
        Some(text.to_owned())
    }

    /// The key of a member of W3C tracestate.
    pub(super) fn tracestate_key(&self) -> Option<String> {
        let text = self.text()?;
        let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = text.bytes().next().is_some_and(first)
            && text.bytes().all(|b| first(b) || b"_-*/@".contains(&b))
            && text.len() <= 256;
        self.demand(
            good,
            "must be a key of tracestate: lower-case letters, digits and _-*/@, a letter or digit first",
        )?;
        Some(text.to_owned())
    }

    /// A method: upper-case, for methods are case-sensitive and all that are in use are upper-case.
    pub(super) fn method(&self) -> Option<String> {
        let text = self.text()?;
        let good = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') && text.len() <= 32;
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        let hint = did_you_mean(&text.to_ascii_uppercase(), known.into_iter());
        self.demand(good, format_args!("must be an upper-case method such as GET or POST{hint}"))?;
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn takes_names_that_can_stand_in_a_metric_and_in_a_store_key() {
        for good in ["a", "7", "ads_voucher-2", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "_a", "-a", ".a", "a.b", "a b", "a:b", "a{b}", "ä", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_command_name("account.core.get_account"));
        assert!(!is_command_name("/users"));
    }

    #[test]
    fn tells_tokens_from_other_texts() {
        assert!(is_token("x-shadow") && is_token("a!#$%&'*+-.^_`|~Z9"));
        for bad in ["", "a b", "a=b", "a,b", "a;b", "\"a\"", "a/b", "ä"] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
