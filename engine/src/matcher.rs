//! Whether a rule concerns a request.

use std::cell::OnceCell;

use crate::headers::Headers;
use crate::path::normalise;
use crate::policy::{Command, HeaderMatch, HeaderTest, Match, StringMatch};

/// What rules ask of a request, worked out once at most.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its headers, as the client sent them.
    pub headers: &'a Headers,
    /// The name of what it calls.
    pub command: Option<&'a str>,
    path: OnceCell<String>,
}

impl<'a> Target<'a> {
    /// The request with these headers, under the first command that matches.
    pub fn new(headers: &'a Headers, commands: &'a [Command]) -> Self {
        let mut target = Self { headers, command: None, path: OnceCell::new() };
        target.command = commands
            .iter()
            .find(|command| command.matches.holds(&target))
            .map(|command| command.name.as_str());
        target
    }

    /// Its normalised path. Few policies ask for it, so it is worked out when one first does.
    pub fn path(&self) -> &str {
        self.path.get_or_init(|| normalise(self.headers.first(":path").unwrap_or_default()))
    }

    /// Its method.
    pub fn method(&self) -> &'a [u8] {
        self.headers.first(":method").unwrap_or_default()
    }
}

impl Match {
    /// Whether every part that is said holds.
    pub fn holds(&self, target: &Target<'_>) -> bool {
        let command = self.commands.is_empty()
            || target.command.is_some_and(|command| self.commands.iter().any(|wanted| wanted == command));
        command
            && (self.methods.is_empty() || self.methods.iter().any(|m| m.as_bytes() == target.method()))
            && self.path.as_ref().is_none_or(|path| path.holds(target.path().as_bytes()))
            && self.headers.iter().all(|header| header.holds(target.headers))
    }
}

impl HeaderMatch {
    fn holds(&self, headers: &Headers) -> bool {
        let mut values = headers.all(&self.name);
        match &self.value {
            HeaderTest::Present(wanted) => values.next().is_some() == *wanted,
            HeaderTest::Value(wanted) => values.any(|value| wanted.holds(value)),
        }
    }
}

impl StringMatch {
    /// Whether it holds for `text`. No expression matches bytes that are not UTF-8.
    pub fn holds(&self, text: &[u8]) -> bool {
        match self {
            StringMatch::Exact(wanted) => text == wanted.as_bytes(),
            StringMatch::Prefix(wanted) => text.starts_with(wanted.as_bytes()),
            StringMatch::Suffix(wanted) => text.ends_with(wanted.as_bytes()),
            StringMatch::Regex(regex) => std::str::from_utf8(text).is_ok_and(|text| regex.is_match(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn headers() -> Headers {
        Headers::from_pairs([
            (":method", &b"GET"[..]),
            (":path", b"/voucher//code/7?x=1"),
            ("x-type", b"ads"),
            ("x-type", b"\xff"),
        ])
    }

    fn command(name: &str, path: &str) -> Command {
        let matches = Match { path: Some(StringMatch::Prefix(path.into())), ..Match::default() };
        Command { name: name.into(), matches }
    }

    #[test]
    fn the_first_command_that_matches_names_the_request() {
        let commands = [command("other", "/x"), command("code", "/voucher/code/"), command("all", "/")];
        assert_eq!(Target::new(&headers(), &commands).command, Some("code"));
        assert_eq!(Target::new(&headers(), &[]).command, None);
    }

    #[test]
    fn every_part_that_is_said_must_hold() {
        let headers = headers();
        let commands = [command("code", "/voucher")];
        let target = Target::new(&headers, &commands);
        let header = |value| vec![HeaderMatch { name: "x-type".into(), value }];
        let exact = |text: &str| HeaderTest::Value(StringMatch::Exact(text.into()));
        let holds = |matches: Match| matches.holds(&target);
        assert!(holds(Match::default()));
        assert!(holds(Match { commands: vec!["a".into(), "code".into()], ..Match::default() }));
        assert!(!holds(Match { commands: vec!["a".into()], ..Match::default() }));
        assert!(!holds(Match { methods: vec!["POST".into()], ..Match::default() }));
        assert!(holds(Match { headers: header(exact("ads")), ..Match::default() }));
        assert!(!holds(Match { headers: header(exact("bads")), ..Match::default() }));
        assert!(!holds(Match { headers: header(HeaderTest::Present(false)), ..Match::default() }));
        let both = Match { methods: vec!["GET".into()], headers: header(exact("bads")), ..Match::default() };
        assert!(!holds(both));
    }

    #[test]
    fn texts_match_exactly_by_prefix_suffix_or_expression() {
        let regex = |text| StringMatch::Regex(regex_lite::Regex::new(text).unwrap());
        assert!(
            StringMatch::Prefix("ab".into()).holds(b"abc") && !StringMatch::Prefix("ab".into()).holds(b"a")
        );
        assert!(StringMatch::Suffix("bc".into()).holds(b"abc"));
        assert!(regex("^a.c$").holds(b"abc") && !regex("^a.c$").holds(b"a\xffc"));
    }
}
