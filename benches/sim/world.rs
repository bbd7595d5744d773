//! The world of one simulation: nodes, network and store on one clock, from the first request to the last answer.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lanekeeper_engine::units::micros;
use lanekeeper_engine::wire::{Check, DecideRequest, DecideResponse, KeyCheck};
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_pcg::Pcg64Mcg;

use super::agenda::{Agenda, Event, Place};
use super::cells::SharedData;
use super::clock::Clock;
use super::demand::{Arrival, Demand};
use super::figures::Tally;
use super::scenario::{Scenario, TIMEOUT};
use super::store::{self, Store};
use super::trace::{Trace, charged, key};
use super::watch::{Violation, Watch};
use super::worker::{Here, Verdict, Verdicts, Waiter, Worker};

/// After the last request, answers are waited for so long.
pub(super) const DRAINED_WITHIN: Duration = Duration::from_millis(100);
/// How often a worker's timer rings, in microseconds.
const TICK_US: u64 = 20_000;

/// A simulation under way.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    now: u64,
    agenda: Agenda,
    checks: Vec<Check>,
    nodes: Vec<Node>,
    store: Store,
    /// Until when nobody answers for it.
    store_away_until: u64,
    questions: u32,
    commands: u64,
    /// Chance for messages, and for what breaks: so that more of one changes nothing of the other.
    travel: Pcg64Mcg,
    fate: Pcg64Mcg,
    pub(super) watch: Watch,
    pub(super) tally: Tally,
    pub(super) trace: Trace,
}

struct Node {
    clock: Clock,
    secret: (u64, u64),
    shared: SharedData,
    workers: Vec<Worker>,
}

/// How a simulation ended that ran to its end.
pub(super) enum Ended {
    Well,
    Broken(Violation),
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64, trace: Trace) -> Self {
        let mut fate = Pcg64Mcg::seed_from_u64(seed.wrapping_add(2));
        let nodes = (0..scenario.nodes).map(|_| Node::started(scenario, &mut fate)).collect();
        // one more than take over, so that there always is one to wait for
        let replicas = scenario.troubles.failover.map_or(0, |failover| failover.times + 1);
        let mut world = Self {
            scenario,
            now: 0,
            agenda: Agenda::default(),
            checks: checks(scenario),
            nodes,
            store: Store::new(replicas),
            store_away_until: 0,
            questions: 0,
            commands: 0,
            travel: Pcg64Mcg::seed_from_u64(seed.wrapping_add(1)),
            fate,
            watch: Watch::of(scenario),
            tally: Tally::default(),
            trace,
        };
        world.foresee();
        world
    }

    /// Timers, and the first of each trouble.
    fn foresee(&mut self) {
        for node in 0..self.scenario.nodes {
            for worker in 0..self.scenario.workers {
                let first = self.fate.random_range(0..TICK_US);
                self.agenda.add(first, Event::Tick(Place { node, worker }));
            }
        }
        self.foresee_crash(self.scenario.troubles.nodes_crash_every, Event::NodeCrash);
        self.foresee_crash(self.scenario.troubles.workers_crash_every, Event::WorkerCrash);
        if let Some(failover) = self.scenario.troubles.failover {
            for nth in 1..=failover.times {
                self.agenda.add(micros(failover.every) * u64::from(nth), Event::Failover);
            }
        }
    }

    fn foresee_crash(&mut self, every: Option<Duration>, crash: Event) {
        if let Some(every) = every {
            let gap: f64 = self.fate.sample(Exp1);
            self.agenda.add(self.now + (gap * micros(every) as f64) as u64, crash);
        }
    }

    /// Runs to the end, or to the first window over its limit where that may not be.
    pub(super) fn run(&mut self, mut demand: Demand, progress: &dyn Fn(u64)) -> Result<Ended> {
        const HEARD_EVERY: u64 = 1 << 16;
        let ends = micros(self.scenario.lasts + DRAINED_WITHIN);
        loop {
            let (arrival, event) = (demand.next_at(), self.agenda.next_at().filter(|at| *at < ends));
            let violation = match (arrival, event) {
                (Some(arrival), event) if event.is_none_or(|event| arrival <= event) => {
                    let Some(arrival) = demand.take() else { continue };
                    self.tally.requests += 1;
                    if self.tally.requests.is_multiple_of(HEARD_EVERY) {
                        progress(HEARD_EVERY);
                    }
                    self.arrive(arrival)?
                }
                (_, Some(event)) => {
                    self.now = event;
                    let Some(event) = self.agenda.take() else { continue };
                    self.happen(event)?
                }
                _ => return Ok(Ended::Well),
            };
            if let Some(violation) = violation
                && !self.scenario.may_lose()
            {
                return Ok(Ended::Broken(violation));
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Result<Option<Violation>> {
        self.now = arrival.at_us;
        let (client, place) = (arrival.client, Place { node: arrival.node, worker: arrival.worker });
        self.watch.asked(client, self.now);
        let since_us = self.now;
        let judged =
            self.at(place, |worker, here| worker.judge(here, Waiter { client, since_us, since: here.now }))?;
        match judged {
            Some(verdict) => {
                self.tally.at_once += 1;
                Ok(self.decided(place, client, verdict))
            }
            None => {
                self.pump(place)?;
                Ok(None)
            }
        }
    }

    fn happen(&mut self, event: Event) -> Result<Option<Violation>> {
        let mut verdicts = Verdicts::new();
        let place = match event {
            Event::Tick(place) => {
                self.agenda.add(self.now + TICK_US, Event::Tick(place));
                self.at(place, |worker, here| worker.tick(here, &mut verdicts))?;
                place
            }
            Event::Question { from, number, question } => {
                self.reach_store(from, number, question)?;
                return Ok(None);
            }
            Event::Answer { to, number, response } => {
                self.at(to, |worker, here| worker.hear(here, number, &response, &mut verdicts))??;
                to
            }
            Event::Timeout { place, number } => {
                self.at(place, |worker, here| worker.give_up(here, number, &mut verdicts))?;
                place
            }
            Event::Replicated { from, command, number } => {
                if let Some(response) = self.store.replicate(command)
                    && self.scenario.waits_for_replicas()
                {
                    self.send_answer(from, number, response);
                }
                return Ok(None);
            }
            Event::Failover => {
                self.fail_over();
                return Ok(None);
            }
            Event::NodeCrash => {
                self.foresee_crash(self.scenario.troubles.nodes_crash_every, Event::NodeCrash);
                return self.crash_node().map(|()| None);
            }
            Event::WorkerCrash => {
                self.foresee_crash(self.scenario.troubles.workers_crash_every, Event::WorkerCrash);
                return self.crash_worker().map(|()| None);
            }
        };
        let mut violation = None;
        for (waiter, verdict) in verdicts {
            self.tally.waited(self.now - waiter.since_us);
            violation = self.decided(place, waiter.client, verdict).or(violation);
        }
        self.pump(place)?;
        Ok(violation)
    }

    /// Something that a worker does now.
    fn at<T>(&mut self, place: Place, act: impl FnOnce(&mut Worker, &Here<'_>) -> T) -> Result<T> {
        let node = self.nodes.get_mut(place.node as usize).context("no such node")?;
        let now = node.clock.at(self.now);
        let nodes = NonZeroU32::new(self.scenario.nodes).unwrap_or(NonZeroU32::MIN);
        let here = Here { cells: &node.shared, now, nodes, checks: &self.checks };
        let worker = node.workers.get_mut(place.worker as usize).context("no such worker")?;
        Ok(act(worker, &here))
    }

    fn decided(&mut self, place: Place, client: u32, verdict: Verdict) -> Option<Violation> {
        if verdict != Verdict::Rejected {
            self.trace.note(self.now, client, || format!("{place:?} {verdict:?}"));
        }
        match verdict {
            Verdict::Admitted => self.tally.admitted += 1,
            Verdict::Rejected => self.tally.rejected += 1,
            Verdict::Failed => self.tally.failed += 1,
        }
        (verdict == Verdict::Admitted).then(|| self.watch.admitted(client, self.now)).flatten()
    }

    /// Brings a worker's questions on their way.
    fn pump(&mut self, place: Place) -> Result<()> {
        loop {
            let number = self.questions;
            let Some(question) = self.at(place, |worker, here| worker.next_question(here, number))? else {
                return Ok(());
            };
            self.questions = self.questions.wrapping_add(1);
            question.validate()?;
            let node = self.nodes.get(place.node as usize).context("no such node")?;
            self.agenda.add(self.now + node.clock.takes(TIMEOUT) + 1, Event::Timeout { place, number });
            for delay in self.scenario.network.carry(&mut self.travel) {
                let question = Rc::clone(&question);
                self.agenda.add(self.now + delay, Event::Question { from: place, number, question });
            }
        }
    }

    fn reach_store(&mut self, from: Place, number: u32, question: Rc<DecideRequest>) -> Result<()> {
        self.tally.questions += 1;
        self.tally.commands += (question.checks.len() + question.returns.len()) as u64;
        self.tally.returns += question.returns.len() as u64;
        if self.now < self.store_away_until {
            self.send_answer(from, number, Rc::new(store::failure(&question)));
            return Ok(());
        }
        self.commands += 1;
        let command = self.commands;
        let response = self.store.answer(self.now, command, Rc::clone(&question));
        ensure!(response.fits(&question), "the store's answer does not fit the question");
        self.tally.charged += charged(&question, &response).map(|(_, tokens)| tokens).sum::<u64>();
        self.tally.taken_back = self.store.taken_back;
        self.trace.exchange(self.now, &format!("{from:?}"), &question, &response);
        if let Some(failover) = self.scenario.troubles.failover {
            self.agenda.add(self.now + micros(failover.lag), Event::Replicated { from, command, number });
        }
        if !self.scenario.waits_for_replicas() {
            self.send_answer(from, number, response);
        }
        Ok(())
    }

    fn send_answer(&mut self, to: Place, number: u32, response: Rc<DecideResponse>) {
        for delay in self.scenario.network.carry(&mut self.travel) {
            let response = Rc::clone(&response);
            self.agenda.add(self.now + delay, Event::Answer { to, number, response });
        }
    }

    /// A replica takes over. Whoever waits for an answer that is lost hears nothing more.
    fn fail_over(&mut self) {
        let Some(failover) = self.scenario.troubles.failover else { return };
        self.store_away_until = self.now + micros(failover.away);
        let lost = self.store.fail_over(failover.clock_back);
        self.trace.note_all(self.now, || format!("failover: {} commands are lost", lost.len()));
        for (question, response) in &lost {
            self.trace.exchange(self.now, "lost:", question, response);
            for (subject, tokens) in charged(question, response) {
                self.watch.lost(subject, tokens);
            }
        }
    }

    fn crash_node(&mut self) -> Result<()> {
        let at = self.fate.random_range(0..self.nodes.len());
        self.trace.note_all(self.now, || format!("node {at} crashes"));
        let node = self.nodes.get_mut(at).context("no such node")?;
        self.tally.cut_off += node.workers.iter().map(Worker::waiting).sum::<u64>();
        *node = Node::started(self.scenario, &mut self.fate);
        Ok(())
    }

    fn crash_worker(&mut self) -> Result<()> {
        let at = self.fate.random_range(0..self.nodes.len());
        let node = self.nodes.get_mut(at).context("no such node")?;
        let which = self.fate.random_range(0..node.workers.len());
        let worker = node.workers.get_mut(which).context("no such worker")?;
        self.tally.cut_off += worker.waiting();
        *worker = Worker::new(node.secret, self.fate.random());
        self.trace.note_all(self.now, || format!("worker {which} of node {at} crashes"));
        Ok(())
    }
}

impl Node {
    fn started(scenario: &Scenario, chance: &mut Pcg64Mcg) -> Self {
        let secret = (chance.random(), chance.random());
        Self {
            clock: Clock::drawn(chance),
            secret,
            shared: SharedData::new(scenario.troubles.lost_races, chance.random()),
            workers: (0..scenario.workers).map(|_| Worker::new(secret, chance.random())).collect(),
        }
    }
}

/// What each client asks.
fn checks(scenario: &Scenario) -> Vec<Check> {
    let windows = scenario.populations.iter().flat_map(|of| (0..of.clients).map(move |_| &of.windows));
    let clients: u32 = scenario.populations.iter().map(|of| of.clients).sum();
    let shared = scenario.shared.as_ref().map(|windows| KeyCheck::take(key(clients), 1, windows.clone()));
    let of_client = |(client, windows): (u32, &std::sync::Arc<[_]>)| {
        let own = KeyCheck::take(key(client), 1, windows.clone());
        Check { keys: std::iter::once(own).chain(shared.clone()).collect() }
    };
    (0..).zip(windows).map(of_client).collect()
}
