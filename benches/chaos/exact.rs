//! What an exact limiter on one machine would have said, and what was certainly too much.
//!
//! When a request was decided nobody outside knows: somewhere between the moment at which it came and the one at which it
//! was answered. So only what cannot have been right at any of those moments is held to be wrong.

use std::collections::VecDeque;
use std::time::Duration;

use super::account::{Request, is_admitted};

/// The most that were certainly admitted within one window: that came after its begin and were answered before its end.
/// They stand in the order in which they came.
pub(super) fn most_within(asked: &[Request], window: Duration) -> usize {
    let admitted: Vec<&Request> = asked.iter().filter(|request| is_admitted(request)).collect();
    let held = |(nth, first): (usize, &&Request)| {
        let behind = admitted.get(nth..).unwrap_or_default();
        let near = behind.iter().take_while(|request| request.came < first.came + window);
        near.filter(|request| request.over < first.came + window).count()
    };
    admitted.iter().enumerate().map(held).max().unwrap_or(0)
}

/// How many an exact limiter admits that hears each request at the moment at which it came.
pub(super) fn admitted(asked: &[Request], limit: u32, window: Duration) -> usize {
    let (mut within, mut admitted) = (VecDeque::new(), 0);
    for request in asked {
        while within.front().is_some_and(|first| *first + window <= request.came) {
            within.pop_front();
        }
        if within.len() < limit as usize {
            within.push_back(request.came);
            admitted += 1;
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::traffic::{Group, Who};
    use crate::driver::{Asked, End};

    const SECOND: Duration = Duration::from_secs(1);

    fn asked(came: u64, over: u64, status: u16) -> Request {
        let ms = Duration::from_millis;
        let who = Who { group: Group::Pressed, user: 1 };
        Asked { who, came: ms(came), over: ms(over), end: End::Answered { status, fallback: None } }
    }

    #[test]
    fn only_what_was_answered_within_the_window_is_certainly_in_it() {
        // the third may have been decided in the next window
        let asked = [asked(0, 1, 200), asked(500, 501, 200), asked(990, 1000, 200), asked(995, 999, 429)];
        assert_eq!(most_within(&asked, SECOND), 2);
        assert_eq!(most_within(&asked, SECOND + Duration::from_nanos(1)), 3);
        assert_eq!(most_within(&[], SECOND), 0);
    }

    #[test]
    fn an_exact_limiter_admits_again_when_the_first_has_left_the_window() {
        let asked: Vec<Request> = [0, 1, 2, 999, 1000, 1001, 1002].map(|came| asked(came, came, 429)).into();
        assert_eq!(admitted(&asked, 2, SECOND), 4);
    }
}
