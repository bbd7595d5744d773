//! All there is at one moment, what can happen next, and what must never have happened.

use stateright::{Model, Property};

use crate::message::{Message, Place};
use crate::node::Node;
use crate::protocol::{Configuration, FIRST, Protocol, Rule, Ticks, moment};
use crate::store::Store;

/// The promise, as a property's name.
pub(crate) const PROMISE: &str = "no trailing window holds more than its limit";

/// What admitted a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// The answer that it waited for.
    Answer,
    /// A token of its node's lease.
    Lease,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    now: Ticks,
    store: Store,
    nodes: Vec<Node>,
    /// Sorted: what was sent first is no part of a state.
    network: Vec<Message>,
    /// What the trailing window holds: each request admitted, when, and by what.
    admitted: Vec<(Ticks, By)>,
    /// How much may still happen.
    left: Left,
}

/// What is left of a configuration's budgets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Left {
    requests: u8,
    renewals: u8,
    returns: u8,
    copies: u8,
    lags: u8,
    crashes: u8,
    failovers: u8,
    setbacks: u8,
    leaps: u8,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A request comes. It takes a token of the lease, or asks.
    Request(Place),
    /// A worker asks for a lease beside the one its node has.
    Renew(Place),
    /// A worker that looked at the pool takes from it, if nobody else did meanwhile.
    Swap(Place),
    Arrive(Message),
    /// A message arrives, and will again.
    ArriveAndStay(Message),
    /// A node gives its pool back.
    GiveBack(usize),
    /// The replica catches up.
    Replicate,
    /// The replica takes over.
    FailOver,
    /// The store's clock falls back by a tick.
    SetBack,
    /// The store's clock leaps ahead by a tick.
    Leap,
    /// A node crashes and starts again.
    Crash(usize),
    Tick,
    /// A tick that the clock of one node does not notice.
    TickMissedBy(usize),
}

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let Configuration { nodes, workers, .. } = self.configuration;
        vec![World {
            now: FIRST,
            store: Store::default(),
            nodes: (0..).take(nodes).map(|place| Node::new(place, workers)).collect(),
            network: Vec::new(),
            admitted: Vec::new(),
            left: Left::of(&self.configuration),
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        if world.admits_nobody_any_more() {
            return;
        }
        for (place, node) in world.nodes.iter().enumerate() {
            world.events_of_node(place, node, events);
        }
        world.events_of_network(events);
        world.events_of_store(events);
        if world.now < FIRST + self.configuration.lasts {
            events.push(Event::Tick);
            if world.left.lags > 0 {
                events.extend((0..world.nodes.len()).map(Event::TickMissedBy));
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        world.go_on(self, event);
        // answers to questions that are not open change nothing: states that differ in them are one
        let World { nodes, network, .. } = &mut world;
        network.retain(|message| match message {
            Message::Answer { to, id, .. } => nodes[to.node].waits_for(to.worker, *id),
            _ => true,
        });
        network.sort_unstable();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let Configuration { nodes, returns, crashes, .. } = self.configuration;
        let mut properties = vec![
            Property::always(PROMISE, |protocol: &Self, world: &World| {
                world.admitted.len() <= protocol.configuration.limit as usize
            }),
            Property::sometimes("a window is full", |protocol: &Self, world: &World| {
                world.admitted.len() == protocol.configuration.limit as usize
            }),
            Property::sometimes("a lease admits a request", |_, world: &World| {
                world.admitted.iter().any(|(_, by)| *by == By::Lease)
            }),
        ];
        if returns > 0 {
            properties.push(Property::sometimes("a return is accepted", |_, world: &World| {
                world.store.has_accepted_a_return()
            }));
        }
        if crashes > 0 && nodes > 1 {
            properties.push(Property::sometimes("a lease outlives the other node", |_, world: &World| {
                let (crashed, not): (Vec<&Node>, Vec<&Node>) =
                    world.nodes.iter().partition(|node| node.restarts > 0);
                !crashed.is_empty() && not.iter().any(|node| node.pool.is_some())
            }));
        }
        properties
    }
}

impl Left {
    fn of(configuration: &Configuration) -> Self {
        Self {
            requests: configuration.requests,
            renewals: configuration.renewals,
            returns: configuration.returns,
            copies: configuration.copies,
            lags: configuration.lags,
            crashes: configuration.crashes,
            failovers: configuration.failovers,
            setbacks: configuration.setbacks,
            leaps: configuration.leaps,
        }
    }
}

impl World {
    /// No request comes any more, and none waits: whatever happens now, the promise was kept or broken before.
    fn admits_nobody_any_more(&self) -> bool {
        let mut workers = self.nodes.iter().flat_map(|node| &node.workers);
        self.left.requests == 0 && workers.all(|worker| worker.question.is_none() && worker.looked.is_none())
    }

    fn events_of_node(&self, place: usize, node: &Node, events: &mut Vec<Event>) {
        for (at, worker) in node.workers.iter().enumerate() {
            let place = Place { node: place, worker: at };
            if worker.looked.is_some() {
                events.push(Event::Swap(place));
                continue;
            }
            // a request that nobody has a token for waits for the answer, and asks nothing itself
            let has_tokens = worker.chunk.is_some() || node.pool.is_some();
            if self.left.requests > 0 && (has_tokens || worker.question.is_none()) {
                events.push(Event::Request(place));
            }
            if self.left.renewals > 0 && node.pool.is_some() && worker.question.is_none() {
                events.push(Event::Renew(place));
            }
        }
        if self.left.returns > 0 && node.pool.is_some() {
            events.push(Event::GiveBack(place));
        }
        if self.left.crashes > 0 {
            events.push(Event::Crash(place));
        }
    }

    fn events_of_network(&self, events: &mut Vec<Event>) {
        // of messages that are the same, one
        for message in self.network.chunk_by(|a, b| a == b).filter_map(<[_]>::first) {
            events.push(Event::Arrive(message.clone()));
            if self.left.copies > 0 {
                events.push(Event::ArriveAndStay(message.clone()));
            }
        }
    }

    fn events_of_store(&self, events: &mut Vec<Event>) {
        if self.left.failovers > 0 {
            if self.store.is_ahead() {
                events.push(Event::Replicate);
            }
            events.push(Event::FailOver);
        }
        if self.left.setbacks > 0 {
            events.push(Event::SetBack);
        }
        if self.left.leaps > 0 {
            events.push(Event::Leap);
        }
    }

    fn go_on(&mut self, protocol: &Protocol, event: Event) {
        match event {
            Event::Request(place) => {
                self.left.requests -= 1;
                self.request(protocol, place);
            }
            Event::Renew(place) => {
                self.left.renewals -= 1;
                self.ask(place, 0);
            }
            Event::Swap(Place { node, worker }) => {
                if self.nodes[node].swap(protocol, worker, self.now) {
                    self.admit(1, By::Lease);
                }
            }
            Event::Arrive(message) => {
                let at = self.network.iter().position(|other| *other == message).unwrap();
                self.network.remove(at);
                self.arrive(protocol, &message);
            }
            Event::ArriveAndStay(message) => {
                self.left.copies -= 1;
                self.arrive(protocol, &message);
            }
            Event::GiveBack(place) => {
                self.left.returns -= 1;
                let (id, lease) = self.nodes[place].take_out(protocol).unwrap();
                self.network.push(Message::Return { id, tokens: lease.tokens, dated: lease.dated });
            }
            Event::Replicate => self.network.extend(self.store.replicate()),
            Event::FailOver => {
                self.left.failovers -= 1;
                self.store.fail_over(self.left.failovers == 0);
            }
            Event::SetBack => {
                self.left.setbacks -= 1;
                self.store.set_back();
            }
            Event::Leap => {
                self.left.leaps -= 1;
                self.store.leap();
            }
            Event::Crash(place) => {
                self.left.crashes -= 1;
                self.nodes[place].crash();
            }
            Event::Tick => self.tick(protocol),
            Event::TickMissedBy(place) => {
                self.left.lags -= 1;
                self.nodes[place].miss_a_tick();
                self.tick(protocol);
            }
        }
    }

    fn request(&mut self, protocol: &Protocol, place: Place) {
        let node = &mut self.nodes[place.node];
        if node.spend(protocol, place.worker, self.now) {
            self.admit(1, By::Lease);
        } else if node.pool.is_some() && node.workers.len() > 1 {
            node.workers[place.worker].looked = node.pool;
        } else if node.take(protocol, place.worker, self.now) {
            self.admit(1, By::Lease);
        } else {
            self.ask(place, 1);
            if !protocol.keeps(Rule::ChargedBeforeUse) {
                self.admit(1, By::Answer);
            }
        }
    }

    fn ask(&mut self, from: Place, cost: u32) {
        let id = self.nodes[from.node].ask(from.worker, cost, self.now);
        self.network.push(Message::Ask { from, id, cost });
    }

    fn arrive(&mut self, protocol: &Protocol, message: &Message) {
        if let Message::Answer { to, id, allowed, lease } = *message {
            let admitted = self.nodes[to.node].hear(protocol, to.worker, id, (allowed, lease), self.now);
            if protocol.keeps(Rule::ChargedBeforeUse) {
                self.admit(admitted, By::Answer);
            }
        } else {
            let has_replica = self.left.failovers > 0;
            self.network.extend(self.store.hear(protocol, self.now, message, has_replica));
        }
    }

    fn admit(&mut self, requests: u32, by: By) {
        self.admitted.extend((0..requests).map(|_| (self.now, by)));
    }

    fn tick(&mut self, protocol: &Protocol) {
        self.now += 1;
        // a window holds both its ends, as the engine's sliding window does
        let oldest = self.now.saturating_sub(protocol.configuration.per);
        self.admitted.retain(|(at, _)| *at >= oldest);
        for node in &mut self.nodes {
            for question in node.let_go(protocol, self.now) {
                if question.cost > 0 && !protocol.keeps(Rule::LostChargesStay) {
                    // as the node guesses it was dated
                    let dated = moment(question.asked + protocol.configuration.within);
                    self.network.push(Message::Return { id: node.next_return(), tokens: 1, dated });
                }
            }
        }
    }
}
