//! What users saw of a fault, from the account of all requests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::calls::Calls;
use super::exact;
use super::traffic::{Group, PRESSED_LIMIT, PRESSED_WINDOW, Who};
use crate::driver::{Asked, End};
use crate::samples::Waits;

/// A request of a case.
pub(super) type Request = Asked<Who>;

/// An answer in the store's place that took less did not wait for the store: half of what the circuit calls slow.
const AT_ONCE: Duration = Duration::from_millis(5);
/// The store is back with the first request that so many in a row follow, all of them decided with it. So many do not
/// come by chance while only a part of the requests is sent to it again.
const BACK: usize = 20;

/// When it broke and when it was mended, since the load began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell {
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// All requests of a case, in the order in which they came.
pub(super) struct Account {
    requests: Vec<Request>,
    calls: Calls,
    spell: Spell,
}

impl Account {
    pub(super) fn of(mut requests: Vec<Request>, calls: Calls, spell: Spell) -> Self {
        requests.sort_by_key(|request| request.came);
        Self { requests, calls, spell }
    }

    /// How many requests are so.
    pub(super) fn count(&self, is_so: impl Fn(&Request) -> bool) -> usize {
        self.requests.iter().filter(|request| is_so(request)).count()
    }

    /// Answers that tell of a failure. The service behind Envoy has none, so they are Envoy's or ours.
    pub(super) fn failures(&self) -> usize {
        self.count(|request| request.status().is_some_and(|status| status >= 500))
    }

    /// Requests refused that were far below their limit, or have none.
    pub(super) fn refused_below_limit(&self) -> usize {
        self.count(|request| request.who.group != Group::Pressed && request.status() == Some(429))
    }

    /// Requests that were decided in the store's place.
    pub(super) fn without_store(&self) -> usize {
        self.count(|request| request.fallback().is_some())
    }

    /// The most of them that came within such a time.
    pub(super) fn most_without_store(&self, within: Duration) -> usize {
        let came = |request: &Request| request.fallback().map(|_| request.came);
        let came: Vec<Duration> = self.requests.iter().filter_map(came).collect();
        let held =
            |(nth, first): (usize, &Duration)| came.partition_point(|came| *came < *first + within) - nth;
        came.iter().enumerate().map(held).max().unwrap_or(0)
    }

    /// From when it broke until the first answer that did not wait for the store: none, if no answer had to do without.
    pub(super) fn fallback_after(&self) -> Option<Duration> {
        let at_once = |request: &&Request| {
            request.came >= self.spell.from && request.fallback().is_some() && request.took() < AT_ONCE
        };
        let first = self.requests.iter().filter(at_once).map(|request| request.over).min()?;
        Some(first.saturating_sub(self.spell.from))
    }

    /// How many requests waited for the store in vain until then; all that did, where nobody ever stopped to.
    pub(super) fn waited_in_vain(&self) -> usize {
        self.in_vain().count()
    }

    /// How many questions to the store ended meanwhile: about as many were slow or failed before nobody waited for it any
    /// more.
    pub(super) fn calls_in_vain(&self) -> u64 {
        let first = self.in_vain().map(|request| request.came).min();
        first.map_or(0, |first| self.calls.between(first, self.fallback_from().min(self.spell.until)))
    }

    fn in_vain(&self) -> impl Iterator<Item = &Request> {
        let until = self.fallback_from();
        self.requests.iter().filter(move |request| {
            let in_vain = request.fallback().is_some() && request.took() >= AT_ONCE;
            in_vain && request.over >= self.spell.from && request.over <= until
        })
    }

    /// When the first answer was there that did not wait.
    fn fallback_from(&self) -> Duration {
        self.fallback_after().map_or(Duration::MAX, |after| self.spell.from + after)
    }

    /// From when it was mended until the store decided again. None, if it never did.
    pub(super) fn back_after(&self) -> Option<Duration> {
        let asking: Vec<&Request> = self
            .requests
            .iter()
            .filter(|request| request.who.group.asks() && request.came >= self.spell.until)
            .collect();
        let is_decided = |request: &&Request| request.status().is_some() && request.fallback().is_none();
        let run = asking.windows(BACK).find(|run| run.iter().all(is_decided))?;
        run.first().map(|first| first.came.saturating_sub(self.spell.until))
    }

    /// The longest that any answer took.
    pub(super) fn longest(&self) -> Duration {
        self.requests.iter().map(Request::took).max().unwrap_or_default()
    }

    /// The longest that an answer took more than those of no limit usually do.
    pub(super) fn longest_added_ms(&self) -> f64 {
        let of = |limited: bool| {
            let wanted =
                self.requests.iter().filter(move |request| (request.who.group != Group::Free) == limited);
            Waits::of(wanted.filter(|request| request.status().is_some()).map(Request::took))
        };
        (of(true).ms_of(1.0) - of(false).ms_of(0.5)).max(0.0)
    }

    /// The most that a window of a pressed user held beyond its limit, as a share of it.
    pub(super) fn over_admission(&self) -> f64 {
        self.over_admission_from(Duration::ZERO)
    }

    /// The same of windows that were open when it was mended, and of those that followed.
    pub(super) fn over_admission_after(&self) -> f64 {
        self.over_admission_from(self.spell.until.saturating_sub(PRESSED_WINDOW))
    }

    fn over_admission_from(&self, begin: Duration) -> f64 {
        let of = |asked: &Vec<Request>| {
            let first = asked.partition_point(|request| request.came < begin);
            exact::most_within(asked.get(first..).unwrap_or_default(), PRESSED_WINDOW)
        };
        let most = self.pressed().values().map(of).max();
        (most.unwrap_or(0) as f64 / f64::from(PRESSED_LIMIT) - 1.0).max(0.0)
    }

    /// Of what an exact limiter admits of the pressed users' requests, the share that was not admitted.
    pub(super) fn under_admission(&self) -> f64 {
        let (mut due, mut missing) = (0, 0);
        for asked in self.pressed().values() {
            let admitted = asked.iter().filter(|request| is_admitted(request)).count();
            let exactly = exact::admitted(asked, PRESSED_LIMIT, PRESSED_WINDOW);
            due += exactly;
            missing += exactly.saturating_sub(admitted);
        }
        if due == 0 { 0.0 } else { missing as f64 / due as f64 }
    }

    /// The requests of each pressed user.
    fn pressed(&self) -> BTreeMap<u32, Vec<Request>> {
        let mut users: BTreeMap<u32, Vec<Request>> = BTreeMap::new();
        for request in self.requests.iter().filter(|request| request.who.group == Group::Pressed) {
            users.entry(request.who.user).or_default().push(*request);
        }
        users
    }
}

/// Whether a request reached the service.
pub(super) fn is_admitted(request: &Request) -> bool {
    matches!(request.end, End::Answered { status: 200, .. })
}

#[cfg(test)]
mod tests {
    use lanekeeper_engine::policy::OnFailure;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SPELL: Spell = Spell { from: Duration::from_millis(1000), until: Duration::from_millis(2000) };

    fn account(requests: Vec<Request>) -> Account {
        // a question ends each 10 ms
        let seen: Vec<_> = (0..300).map(|nth| (10 * MS * nth, u64::from(nth))).collect();
        Account::of(requests, Calls::of(&seen), SPELL)
    }

    fn asked(group: Group, came: u32, took: u32, status: u16, fallback: bool) -> Request {
        let end = End::Answered { status, fallback: fallback.then_some(OnFailure::Local) };
        Asked { who: Who { group, user: 0 }, came: MS * came, over: MS * (came + took), end }
    }

    #[test]
    fn fallback_is_there_with_the_first_answer_that_did_not_wait() {
        let fresh = |came, took, fallback| asked(Group::Fresh, came, took, 200, fallback);
        let requests =
            vec![fresh(900, 1, false), fresh(1001, 20, true), fresh(1010, 20, true), fresh(1040, 1, true)];
        let account = account(requests);
        assert_eq!(account.fallback_after(), Some(41 * MS));
        assert_eq!((account.waited_in_vain(), account.calls_in_vain()), (2, 3));
        assert_eq!(account.back_after(), None);
    }

    #[test]
    fn the_store_is_back_when_twenty_in_a_row_are_decided_with_it() {
        let mut requests: Vec<Request> =
            (0..40).map(|nth| asked(Group::Fresh, 2000 + 10 * nth, 1, 200, nth < 5 || nth == 10)).collect();
        // who spends a lease says nothing about the store
        requests.push(asked(Group::Busy, 2305, 1, 200, true));
        assert_eq!(account(requests).back_after(), Some(110 * MS));
    }

    #[test]
    fn the_most_without_the_store_came_within_the_time_and_not_at_its_end() {
        let came = [0, 500, 999, 1000, 1400, 3000];
        let requests = came.map(|came| asked(Group::Fresh, came, 1, 200, came != 999)).to_vec();
        let account = account(requests);
        assert_eq!(account.without_store(), 5);
        assert_eq!(account.most_without_store(1000 * MS), 3);
        assert_eq!(account.most_without_store(500 * MS), 2);
    }

    #[test]
    fn what_is_added_is_beyond_what_requests_of_no_limit_take() {
        let requests = vec![
            asked(Group::Free, 0, 2, 200, false),
            asked(Group::Busy, 0, 27, 200, false),
            asked(Group::Fresh, 0, 3, 503, false),
            asked(Group::Busy, 0, 3, 429, false),
        ];
        let account = account(requests);
        assert_eq!(account.longest_added_ms(), 25.0);
        assert_eq!((account.failures(), account.refused_below_limit()), (1, 1));
    }

    #[test]
    fn pressed_users_are_held_against_an_exact_limiter_each_alone() {
        let requests =
            (0..30).map(|nth| asked(Group::Pressed, nth, 1, if nth < 12 { 200 } else { 429 }, false));
        let admits_more = account(requests.collect());
        assert!((admits_more.over_admission() - 0.2).abs() < 1e-9);
        // all of it was over when the fault was
        assert_eq!(admits_more.over_admission_after(), 0.0);
        assert_eq!(admits_more.under_admission(), 0.0);
        let refused =
            (0..30).map(|nth| asked(Group::Pressed, nth, 1, if nth < 8 { 200 } else { 429 }, false));
        assert!((account(refused.collect()).under_admission() - 0.2).abs() < 1e-9);
    }
}
