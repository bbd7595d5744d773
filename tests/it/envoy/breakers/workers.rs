//! Four workers, each with a VM of its own, and one breaker: how soon traffic flows again, and what the service feels
//! meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use lanekeeper_tests::failing::{Manner, most_at_once};

use super::*;

const WORKERS: u64 = 4;
const SENDERS: usize = 8;
const MIN_CALLS: usize = 10;
const PROBES: usize = 3;
const OPEN_FOR: Duration = Duration::from_millis(300);
/// Long enough that probes let in at the same time would be at the service at the same time.
const TOOK: Duration = Duration::from_millis(40);

const PAUSE: Duration = Duration::from_millis(10);

/// Opens after ten calls, and does not wait for longer each time.
fn resilience() -> Value {
    let open_for = format!("{}ms", OPEN_FOR.as_millis());
    json!({"shop": {
        "min_calls": MIN_CALLS, "open_for": open_for, "half_open_calls": PROBES, "backoff": {"factor": 1, "max": open_for},
    }})
}

/// A request that has ended.
struct Answered {
    at: Instant,
    is_refused: bool,
}

/// Clients that send on until this is dropped, each request on a connection of its own: so every worker has its part.
struct Load<'e> {
    is_over: &'e AtomicBool,
    senders: Vec<ScopedJoinHandle<'e, Vec<Answered>>>,
}

impl<'e> Load<'e> {
    fn start<'s: 'e>(scope: &'s Scope<'e, '_>, envoy: &'e Envoy, is_over: &'e AtomicBool) -> Self {
        let send_on = move || {
            let client = Client::unkept(TRUSTED).unwrap();
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let answer = send(&client, envoy, Lane::Normal, "/shop/1");
                answers.push(Answered { at: Instant::now(), is_refused: refusing(&answer).is_some() });
                // the machine has only so many ports for connections that are closed
                thread::sleep(PAUSE);
            }
            answers
        };
        Self { is_over, senders: (0..SENDERS).map(|_| scope.spawn(send_on)).collect() }
    }

    fn stop(mut self) -> Vec<Answered> {
        self.is_over.store(true, Ordering::Relaxed);
        self.senders.drain(..).flat_map(|sender| sender.join().unwrap()).collect()
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn wait_for_openings(envoy: &Envoy, count: u64) {
    let opened = || transitions(envoy, Lane::Normal, "open");
    wait::until("the breaker to open", || Ok((opened() >= count).then_some(()))).unwrap();
}

#[test]
fn traffic_flows_again_soon_after_the_service_is_well_and_probes_are_few_till_then() {
    let service = Failing::start().unwrap();
    let setup = Setup::new(service.address()).policy(policy(&["shop"], resilience())).workers(WORKERS);
    let envoy = setup.start().unwrap();
    service.serve(Lane::Normal, Manner::Late(503, TOOK));
    let is_over = AtomicBool::new(false);
    let (answers, tripped, well) = thread::scope(|scope| {
        let load = Load::start(scope, &envoy, &is_over);
        wait_for_openings(&envoy, 1);
        // those let in before it opened
        service.wait("the first calls to end", |book| book.under_way(Lane::Normal) == 0).unwrap();
        let tripped = Instant::now();
        // three times its probes fail
        wait_for_openings(&envoy, 4);
        service.serve(Lane::Normal, Manner::Late(200, TOOK));
        let well = Instant::now();
        wait::until("the breaker to close", || {
            Ok((transitions(&envoy, Lane::Normal, "closed") == 1).then_some(()))
        })
        .unwrap();
        // traffic that is full is more than the probes
        let after = Instant::now();
        service
            .wait("full traffic", |book| {
                book.calls(Lane::Normal).filter(|call| call.began > after).count() > 50
            })
            .unwrap();
        (load.stop(), tripped, well)
    });

    let book = service.book();
    let since_trip = || book.calls(Lane::Normal).filter(|call| call.began > tripped);
    // as soon as two of the three have succeeded it may close
    let mut successes: Vec<Instant> =
        since_trip().filter(|call| call.began > well).filter_map(|call| call.ended).collect();
    successes.sort();
    let may_close = successes[1];
    let probes = most_at_once(since_trip().filter(|call| call.began < may_close));
    let last_refusal =
        answers.iter().filter(|answer| answer.is_refused).map(|answer| answer.at).max().unwrap();
    let recovered = last_refusal.saturating_duration_since(well);
    println!(
        "with {WORKERS} workers full traffic {} ms after the service is well (open_for: {} ms), and at most {probes} \
         probes at once (half_open_calls: {PROBES})",
        recovered.as_millis(),
        OPEN_FOR.as_millis(),
    );
    assert!(recovered <= OPEN_FOR + Duration::from_secs(1), "{recovered:?}");
    assert!((1..=PROBES).contains(&probes), "{probes} probes at once");
}

/// How many calls reach a service that goes on failing, after those that trip the breaker and until its probes have failed
/// ten times.
fn calls_after_the_trip(workers: u64) -> usize {
    let service = Failing::start().unwrap();
    service.serve(Lane::Normal, Manner::Late(503, TOOK));
    let setup = Setup::new(service.address()).policy(policy(&["shop"], resilience())).workers(workers);
    let envoy = setup.start().unwrap();
    let is_over = AtomicBool::new(false);
    let last_opened = thread::scope(|scope| {
        let load = Load::start(scope, &envoy, &is_over);
        wait_for_openings(&envoy, 1 + 10);
        let last_opened = Instant::now();
        load.stop();
        last_opened
    });
    let book = service.book();
    let mut ended: Vec<Instant> = book.calls(Lane::Normal).filter_map(|call| call.ended).collect();
    ended.sort();
    // whoever is let in now has not heard of the trip, or is a probe
    let tripped = ended[MIN_CALLS - 1];
    book.calls(Lane::Normal).filter(|call| call.began > tripped && call.began < last_opened).count()
}

#[test]
fn four_workers_let_hardly_more_calls_through_than_one() {
    let (one, four) = (calls_after_the_trip(1), calls_after_the_trip(WORKERS));
    println!(
        "after a trip, with ten times {PROBES} probes: {one} calls with one worker, {four} with {WORKERS}"
    );
    assert!(four * 10 <= one * 11, "{four} calls with {WORKERS} workers, {one} with one");
}
