//! Whether a server is asked at all.
//!
//! Whoever asks a server that hangs learns it only after the whole of the store's timeout, and so does everybody behind
//! him, while the batches pile up here and would all be run, for nobody, once it is back. So after a few batches in a
//! row without an answer in time, callers hear at once that it is of no use. The keeper of the link alone asks on, for
//! a sign of life.

use std::convert::Infallible;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use redis::ConnectionInfo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::clock::Node;

/// After how many batches in a row a server is asked no more. One late answer is chance, and each of these was waited
/// for.
const FAILURES: u32 = 5;
/// How often a server is then asked for a sign of life: far within the two seconds after which all is to be as before,
/// and nothing to a server that works.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// What stands before one server.
///
/// ```text
///          5 batches in a row that failed or were late
///   Closed -----------------------------------------> Open
///          <-----------------------------------------
///            a sign of life in time, or a new connection
/// ```
pub(super) struct Guard {
    state: watch::Sender<State>,
    /// In which time an answer is expected.
    patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Whoever asks is let through; the last so many batches failed.
    Closed { failures: u32 },
    /// Nobody is.
    Open,
}

impl Guard {
    /// One that lets everybody through.
    fn new(patience: Duration) -> Self {
        Self { state: watch::Sender::new(State::Closed { failures: 0 }), patience }
    }

    /// Lets a batch through; `None` while there is no use in it.
    pub(super) fn ask(&self) -> Option<Asked<'_>> {
        (!self.is_open()).then(|| Asked { guard: self, since: Instant::now(), is_answered: false })
    }

    /// Whether nobody is let through.
    pub(super) fn is_open(&self) -> bool {
        *self.state.borrow() == State::Open
    }

    /// Lets everybody through again: there is a new connection.
    pub(super) fn begin_anew(&self) {
        self.close();
    }

    /// Hears a sign of life that took so long.
    pub(super) fn hear(&self, took: Duration) {
        if took <= self.patience {
            self.close();
        }
    }

    /// Until the next sign of life is due: after `every`, and sooner while it is open.
    pub(super) async fn until_next_sign(&self, every: Duration) {
        let mut states = self.state.subscribe();
        // Passed or opened, a sign is due.
        let _ = timeout(every, states.wait_for(|state| *state == State::Open)).await;
        if self.is_open() {
            sleep(PROBE_EVERY).await;
        }
    }

    fn close(&self) {
        self.change(|_| State::Closed { failures: 0 });
    }

    fn succeed(&self) {
        // Mostly there is nothing to write.
        if matches!(*self.state.borrow(), State::Closed { failures: 1.. }) {
            self.change(|state| match state {
                State::Closed { .. } => State::Closed { failures: 0 },
                State::Open => State::Open,
            });
        }
    }

    fn fail(&self) {
        self.change(|state| match state {
            State::Closed { failures } if failures + 1 < FAILURES => State::Closed { failures: failures + 1 },
            State::Closed { .. } | State::Open => State::Open,
        });
    }

    /// Those who watch are told only when it opens or closes.
    fn change(&self, next: impl FnOnce(State) -> State) {
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(state, next(*state));
            (before == State::Open) != (*state == State::Open)
        });
    }
}

/// A batch that was let through. Dropped before it was answered, it counts as one that was late, unless it was
/// given up so early that this says nothing of the server.
pub(super) struct Asked<'a> {
    guard: &'a Guard,
    since: Instant,
    is_answered: bool,
}

impl Asked<'_> {
    /// It was answered.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
        match self.since.elapsed() <= self.guard.patience {
            true => self.guard.succeed(),
            false => self.guard.fail(),
        }
    }

    /// It was lost.
    pub(super) fn lost(mut self) {
        self.is_answered = true;
        self.guard.fail();
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.since.elapsed() >= self.guard.patience / 2 {
            self.guard.fail();
        }
    }
}

/// The guards of all servers, for operators.
#[derive(Clone)]
pub(super) struct Guards {
    open: Family<Node, Gauge<i64, AtomicI64>>,
    patience: Duration,
}

impl Guards {
    /// Guards that expect each answer within `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        Self { open: Family::default(), patience }
    }

    /// Shows them among the metrics.
    pub(super) fn show(&self, registry: &mut Registry) {
        let help = "Whether a Redis server is asked no more, as it did not answer in time: 1, else 0";
        registry.register("redis_guard_open", help, self.open.clone());
    }

    /// The guard of one server.
    pub(super) fn guard(&self) -> Guard {
        Guard::new(self.patience)
    }

    /// Tells what becomes of the guard of `server`. What it shows goes when it is dropped.
    pub(super) async fn watch(&self, server: &ConnectionInfo, guard: &Guard) -> Infallible {
        let shown = Shown { guards: self, node: Node::of(server) };
        let name = server.addr().to_string();
        let mut states = guard.state.subscribe();
        let mut was_open = false;
        loop {
            let is_open = *states.borrow_and_update() == State::Open;
            self.open.get_or_create(&shown.node).set(is_open.into());
            match (was_open, is_open) {
                (false, true) => {
                    warn!(name, "redis does not answer in time: nobody waits for it until it does")
                }
                (true, false) => info!(name, "redis answers in time again"),
                _ => {}
            }
            was_open = is_open;
            if states.changed().await.is_err() {
                std::future::pending::<Infallible>().await;
            }
        }
    }
}

/// What the metrics show of one server, until it is dropped.
struct Shown<'a> {
    guards: &'a Guards,
    node: Node,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.guards.open.remove(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(15);

    fn guard() -> Guard {
        Guard::new(PATIENCE)
    }

    fn lose(guard: &Guard, count: u32) {
        (0..count).for_each(|_| guard.ask().unwrap().lost());
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_five_failures_in_a_row_and_no_other_five() {
        let guard = guard();
        for _ in 0..3 {
            lose(&guard, FAILURES - 1);
            guard.ask().unwrap().answered();
        }
        lose(&guard, FAILURES);
        assert!(guard.ask().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_the_last_moment_is_in_time_and_one_after_it_is_a_failure() {
        let guard = guard();
        for (took, is_open) in [(PATIENCE, false), (PATIENCE + Duration::from_millis(1), true)] {
            for _ in 0..FAILURES {
                let asked = guard.ask().unwrap();
                sleep(took).await;
                asked.answered();
            }
            assert_eq!(guard.is_open(), is_open, "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_early_says_nothing_and_who_waited_in_vain_does() {
        let guard = guard();
        for (waited, is_open) in [(PATIENCE / 3, false), (PATIENCE, true)] {
            for _ in 0..2 * FAILURES {
                let asked = guard.ask();
                sleep(waited).await;
                drop(asked);
            }
            assert_eq!(guard.is_open(), is_open, "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_closes_it_if_it_came_in_time() {
        let guard = guard();
        lose(&guard, FAILURES);
        guard.hear(PATIENCE * 2);
        assert!(guard.is_open());
        guard.hear(PATIENCE);
        assert!(!guard.is_open());
        lose(&guard, FAILURES - 1);
        assert!(!guard.is_open(), "failures count from there on");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_asked_for_before_it_opened_does_not_close_it() {
        let guard = guard();
        let early = guard.ask().unwrap();
        lose(&guard, FAILURES);
        early.answered();
        assert!(guard.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn signs_are_due_ten_times_a_second_while_it_is_open() {
        let (guard, second, began) = (guard(), Duration::from_secs(1), Instant::now());
        guard.until_next_sign(second).await;
        assert_eq!(began.elapsed(), second);
        let opens = async {
            sleep(PATIENCE).await;
            lose(&guard, FAILURES);
        };
        tokio::join!(guard.until_next_sign(second), opens);
        assert_eq!(began.elapsed(), second + PATIENCE + PROBE_EVERY);
        guard.until_next_sign(second).await;
        assert_eq!(began.elapsed(), second + PATIENCE + PROBE_EVERY * 2);
    }
}
