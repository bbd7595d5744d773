//! The protocol of leases, model-checked: every state that small configurations can reach, one after the other.
//!
//! Tests that run the protocol show that it held in the orders that happened. Whether it holds in all of them is
//! a question of lost, late and doubled messages, of crashes and of clocks, that no number of runs answers. A
//! checker (the `stateright` crate) answers it for a world that is small enough: it begins with nothing, does
//! everything that could happen next, and then everything that could happen after that, until it knows every state
//! there is. In each the promise must hold: **no trailing window holds more admissions than its limit**. Then it
//! does the same without one of the protocol's rules, and must find the promise broken. So no rule is there that
//! could go, and a mistake in the model that kept it from seeing anything would be seen.
//!
//! # The world
//!
//! One subject with one sliding window. The store is the engine's own `SubjectCounters` and `decide`, so what is
//! checked is their leases, dates and memory of returns, and not a drawing of them. One or two nodes of
//! one or two workers ask it, one request at a time, each for its own token and a lease beside it.
//!
//! - **Time** comes in ticks, of which a lease lives three. All clocks show the same but for what happens to them:
//!   a node's may miss a tick, the store's may fall back by one. A margin of one tick stands for the 1/512 of a
//!   life by which nodes cut theirs.
//! - **Messages** arrive in any order and at any time. One that is lost is one that has not arrived by the end. A
//!   configuration says how many arrive twice.
//! - **Nodes** crash at any moment and start again with nothing.
//! - **The store** has a replica that catches up at any moment, and takes over at any moment with what it has.
//! - **Sizes** are as large as there is room for, with all of a limit for drift. That is the hardest on the promise,
//!   of which no bound on a size or a life is a part.
//!
//! States that differ only in what can never matter again are one: the order in which messages were sent, answers
//! that nobody waits for, admissions that have left the window.
//!
//! # What breaks without each rule
//!
//! | rule | what happens without it |
//! | --- | --- |
//! | charged before use | a request goes through while its question is on its way, and the answer is a refusal |
//! | dated at its end | a token is spent late in its life, and counts as long as if it had been spent at its grant |
//! | life from the asking | the answer takes long, and the life that begins with it ends after the charge's date |
//! | life cut for slow clocks | the node's clock misses a tick, and its lease lives a tick longer than its date |
//! | timeout cut for slow clocks | the same for the token of the request that asked |
//! | dead leases unspent | a token is spent when its charge has left the window, or is about to |
//! | late answers unused | so is the token of a request whose answer took that long |
//! | answers heard once | an answer arrives twice, and its tokens are spent twice |
//! | lost charges stay | a question that was lost is given back: another request loses its charge, of the same date |
//! | taken out before returned | a token is on its way back to the store, and is spent meanwhile |
//! | returned once | a return arrives twice: a token that was spent loses its charge |
//! | returned in time | the same after the lease's end, when its id is forgotten already |
//! | time never backwards | the same after the store's clock fell back behind that end |
//! | taken by swap | two workers see a token in the pool, and both spend it |
//! | dies with its node | a node finds its lease again when it restarts, with tokens it has spent |
//! | answered when replicated | tokens are spent whose charge the replica never got |
//!
//! # What is left out
//!
//! - **A store's clock that leaps ahead.** It breaks the promise, as a test here shows: tokens come back as much too
//!   early. Store and replica must agree on the time; only falling back is safe.
//! - **Clocks that run apart** by more than the margin, and a worker that is held up between its look at the clock
//!   and the request's way on.
//! - **A replica that takes over though another one had acknowledged.** The model has one replica.
//! - Several keys and windows of one request, which the store decides in one step; other algorithms; resets; fresh
//!   local counts while the store is away. The engine's own tests and the simulator have those.
//! - Refusals that are remembered: they admit nobody.
//!
//! `cargo test -p lanekeeper-tests --no-default-features --test model -- --nocapture` prints the shortest way to
//! each broken promise, and how many states each exploration has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by a panic what is wrong"
)]

mod configurations;
mod message;
mod node;
mod protocol;
mod store;
mod world;

use std::fmt::Write as _;

use stateright::{Checker, HasDiscoveries, Model};

use configurations::*;
use protocol::{Configuration, Protocol, Rule};
use world::{Event, PROMISE};

/// Explores all states that can be reached, or those within so many events; stops when one breaks the promise.
fn explore(protocol: Protocol, most_events: Option<usize>) -> impl Checker<Protocol> {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures);
    let checker = match most_events {
        // the first state has a depth of one, and the deepest are not looked at
        Some(events) => checker.target_max_depth(events + 2),
        None => checker,
    };
    checker.spawn_bfs().join()
}

/// The fewest events that break the promise.
fn counterexample(protocol: Protocol) -> Option<Vec<Event>> {
    let find =
        |most_events| explore(protocol, most_events).discovery(PROMISE).map(|path| path.into_actions());
    // the checker looks on for a while when it has found one, and keeps the last
    let mut found = find(None)?;
    while let Some(shorter) = find(Some(found.len() - 1)) {
        found = shorter;
    }
    Some(found)
}

fn listed(events: &[Event]) -> String {
    events.iter().fold(String::new(), |mut list, event| {
        writeln!(list, "    {event:?}").unwrap();
        list
    })
}

/// With all rules kept no state breaks the promise, of which there are `more_than` so many; and what makes an
/// exploration worth its while does happen.
#[track_caller]
fn holds(configuration: Configuration, more_than: usize) {
    let protocol = Protocol { configuration, without: None };
    let checker = explore(protocol, None);
    if checker.discovery(PROMISE).is_some() {
        panic!("the promise is broken:\n{}", listed(&counterexample(protocol).unwrap()));
    }
    assert!(checker.is_done());
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{states} states");
    assert!(states > more_than, "only {states} states");
}

/// Without the rule the promise breaks, where it [`holds`] with it.
#[track_caller]
fn breaks_without(rule: Rule, configuration: Configuration) {
    let found = counterexample(Protocol { configuration, without: Some(rule) });
    let events = found.unwrap_or_else(|| panic!("nothing breaks without {rule:?}"));
    println!("without {rule:?}:\n{}", listed(&events));
}

#[test]
fn the_promise_holds_with_lost_late_and_overtaken_messages() {
    holds(ONE_NODE, 9_000);
}

#[test]
fn the_promise_holds_when_a_message_arrives_twice() {
    holds(COPIES, 42_000);
}

#[test]
fn the_promise_holds_over_two_nodes() {
    holds(TWO_NODES, 42_000);
}

#[test]
fn the_promise_holds_over_two_workers_of_a_node() {
    holds(TWO_WORKERS, 36_000);
}

#[test]
fn the_promise_holds_when_workers_keep_tokens_of_their_own() {
    holds(CHUNKS, 76_000);
}

#[test]
fn the_promise_holds_when_a_lease_is_renewed_while_it_lives() {
    holds(RENEWALS, 109_000);
}

#[test]
fn the_promise_holds_when_a_node_s_clock_is_slow() {
    holds(SLOW_CLOCK, 20_000);
}

#[test]
fn the_promise_holds_when_tokens_go_back() {
    holds(RETURNS, 118_000);
}

#[test]
fn the_promise_holds_when_a_node_crashes() {
    holds(CRASHES, 85_000);
}

#[test]
fn the_promise_holds_when_the_replica_takes_over() {
    holds(FAILOVERS, 68_000);
}

#[test]
fn the_promise_holds_when_nodes_and_store_fail_together() {
    holds(CRASHES_AND_FAILOVERS, 127_000);
}

#[test]
fn the_promise_holds_when_the_store_s_clock_falls_back() {
    holds(SETBACKS, 166_000);
}

#[test]
fn the_promise_breaks_when_requests_go_through_before_they_are_charged() {
    breaks_without(Rule::ChargedBeforeUse, ONE_NODE);
}

#[test]
fn the_promise_breaks_when_a_charge_is_dated_before_its_end() {
    breaks_without(Rule::DatedAtItsEnd, ONE_NODE);
}

#[test]
fn the_promise_breaks_when_a_life_begins_with_the_answer() {
    breaks_without(Rule::LifeFromTheAsking, ONE_NODE);
}

#[test]
fn the_promise_breaks_when_a_slow_clock_prolongs_a_life() {
    breaks_without(Rule::LifeCutForSlowClocks, SLOW_CLOCK);
}

#[test]
fn the_promise_breaks_when_a_slow_clock_prolongs_a_timeout() {
    breaks_without(Rule::TimeoutCutForSlowClocks, SLOW_CLOCK);
}

#[test]
fn the_promise_breaks_when_a_dead_lease_is_spent() {
    breaks_without(Rule::DeadLeasesUnspent, ONE_NODE);
}

#[test]
fn the_promise_breaks_when_late_answers_are_used() {
    breaks_without(Rule::LateAnswersUnused, ONE_NODE);
}

#[test]
fn the_promise_breaks_when_an_answer_is_heard_twice() {
    breaks_without(Rule::AnswersHeardOnce, COPIES);
}

#[test]
fn the_promise_breaks_when_a_charge_that_was_lost_is_given_back() {
    breaks_without(Rule::LostChargesStay, TWO_NODES);
}

#[test]
fn the_promise_breaks_when_returned_tokens_are_still_spent() {
    breaks_without(Rule::TakenOutBeforeReturned, RETURNS);
}

#[test]
fn the_promise_breaks_when_a_return_is_accepted_twice() {
    breaks_without(Rule::ReturnedOnce, RETURNS);
}

#[test]
fn the_promise_breaks_when_a_return_is_accepted_late() {
    breaks_without(Rule::ReturnedInTime, RETURNS);
}

#[test]
fn the_promise_breaks_when_a_subject_s_time_runs_backwards() {
    breaks_without(Rule::TimeNeverBackwards, SETBACKS);
}

#[test]
fn the_promise_breaks_when_workers_take_without_a_swap() {
    breaks_without(Rule::TakenBySwap, TWO_WORKERS);
}

#[test]
fn the_promise_breaks_when_a_lease_outlives_its_node() {
    breaks_without(Rule::DiesWithItsNode, CRASHES);
}

#[test]
fn the_promise_breaks_when_answers_do_not_wait_for_the_replica() {
    breaks_without(Rule::AnsweredWhenReplicated, FAILOVERS);
}

// No rule of the protocol could help: whoever asks a clock what counts has to believe it.
#[test]
fn the_promise_breaks_when_the_store_s_clock_leaps_ahead_whatever_the_rules() {
    assert!(counterexample(Protocol { configuration: LEAPS, without: None }).is_some());
}
