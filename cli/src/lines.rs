//! On which line of the YAML a path of the policy stands.
//!
//! The checker knows paths, not lines: the plugin is handed JSON that nobody wrote by hand. So the lines are found
//! afterwards, by walking the text once more, and only when there are errors to place.

use std::collections::BTreeMap;

use lanekeeper_engine::policy::{field_path, item_path};
use serde_saphyr::granit_parser::{Event, Parser};

/// The lines of all paths in a document.
pub(crate) struct Lines {
    /// Where each path stands first.
    first: BTreeMap<String, usize>,
    /// The paths that stand again, by the lines they do on.
    again: BTreeMap<usize, String>,
}

/// A list or an object whose end has not come yet.
enum Open {
    List {
        path: String,
        next: usize,
    },
    /// `value_at` is the path of the value that comes next; nothing when a name comes next.
    Object {
        path: String,
        value_at: Option<String>,
    },
}

impl Lines {
    /// The lines of `yaml`, up to where it stops being YAML.
    pub(crate) fn of(yaml: &str) -> Self {
        let mut lines = BTreeMap::new();
        let mut again = BTreeMap::new();
        let mut open: Vec<Open> = Vec::new();
        for (event, span) in Parser::new_from_str(yaml).map_while(Result::ok) {
            let line = span.start.line();
            match event {
                Event::Scalar(ref name, ..) if names_a_field(&open) => {
                    if let Some(Open::Object { path, value_at }) = open.last_mut() {
                        let path = field_path(path, name);
                        if lines.contains_key(&path) {
                            again.entry(line).or_insert_with(|| path.clone());
                        } else {
                            lines.insert(path.clone(), line);
                        }
                        *value_at = Some(path);
                    }
                }
                Event::Scalar(..) | Event::Alias(..) => {
                    place(&mut open, &mut lines, line);
                }
                Event::SequenceStart(..) => {
                    let path = place(&mut open, &mut lines, line);
                    open.push(Open::List { path, next: 0 });
                }
                Event::MappingStart(..) => {
                    let path = place(&mut open, &mut lines, line);
                    open.push(Open::Object { path, value_at: None });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                }
                _ => {}
            }
        }
        Self { first: lines, again }
    }

    /// The path that stands on this line though it stood before.
    pub(crate) fn again(&self, line: usize) -> Option<&str> {
        self.again.get(&line).map(String::as_str)
    }

    /// The line of `path`, or of what it lies in: a field that is missing has no line, and neither has what
    /// comes in through an alias.
    pub(crate) fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.first.get(path) {
                return Some(*line);
            }
            match path.rsplit_once(['.', '[']) {
                Some((owner, _)) => path = owner,
                None => return self.first.get("").copied(),
            }
        }
    }
}

fn names_a_field(open: &[Open]) -> bool {
    matches!(open.last(), Some(Open::Object { value_at: None, .. }))
}

/// Notes the line of the value that comes now, and returns its path.
fn place(open: &mut [Open], lines: &mut BTreeMap<String, usize>, line: usize) -> String {
    let path = match open.last_mut() {
        None => String::new(),
        Some(Open::List { path, next }) => {
            *next += 1;
            item_path(path, *next - 1)
        }
        Some(Open::Object { path, value_at }) => match value_at.take() {
            Some(path) => path,
            // A name that is no text. What stands under it has no path; its line is the object's.
            None => {
                *value_at = Some(format!("{path}[?]"));
                format!("{path}[?]")
            }
        },
    };
    lines.entry(path.clone()).or_insert(line);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_line_of_its_name_and_a_missing_one_that_of_what_it_lies_in() {
        let lines = Lines::of(
            "# a comment\n\
             version: 1\n\
             rate_limits:\n  \
               a.b:\n    \
                 windows:\n    \
                 - {limit: 1,\n       \
                    per: 1m}\n    \
                 - &w {limit: 2, per: 1s}\n    \
                 - *w\n  \
               ? [no, text]\n  \
               : {x: 1}\n  \
               c: |\n    \
                 text\n    \
                 text\n  \
               d: {}\n",
        );
        for (path, line) in [
            ("", Some(2)),
            ("version", Some(2)),
            ("rate_limits", Some(3)),
            ("rate_limits[\"a.b\"]", Some(4)),
            ("rate_limits[\"a.b\"].windows", Some(5)),
            ("rate_limits[\"a.b\"].windows[0].limit", Some(6)),
            ("rate_limits[\"a.b\"].windows[0].per", Some(7)),
            ("rate_limits[\"a.b\"].windows[1]", Some(8)),
            ("rate_limits[\"a.b\"].windows[2].per", Some(9)),
            ("rate_limits[\"a.b\"].keys", Some(4)),
            ("rate_limits.c", Some(12)),
            ("rate_limits.d.windows", Some(15)),
            ("lanes", Some(2)),
        ] {
            assert_eq!(lines.line(path), line, "{path}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_has_the_line_of_the_first_and_is_found_on_that_of_the_second() {
        let lines = Lines::of("a:\n  x.y: 1\n  b: 2\n  x.y:\n    b: 3\nb: 4\n");
        assert_eq!(lines.line("a[\"x.y\"]"), Some(2));
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(|line| lines.again(line)),
            [None, None, None, Some("a[\"x.y\"]"), None, None]
        );
    }

    #[test]
    fn what_is_no_yaml_has_the_lines_before_it() {
        let lines = Lines::of("a: 1\nb: [\n");
        assert_eq!(lines.line("a"), Some(1));
    }
}
