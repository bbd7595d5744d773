//! The built plugin in several VMs of several nodes, one store, and an exact log: no trailing window holds more than its
//! limit. The simulator runs the same engine on larger loads; here the way from a host's callback to the store and back
//! is the real one.

use std::time::Duration;

use lanekeeper_tests::host::{Answer, Callout, Host, State, Stream};
use serde_json::json;

use super::{MS, Store, behaved, by, decisions, start};

const NODES: usize = 2;
const WORKERS: usize = 3;
const USERS: usize = 3;
/// `(limit, seconds)`
const WINDOWS: [(usize, u64); 2] = [(60, 10), (200, 60)];

/// Numbers of which each follows from the one before (Marsaglia's xorshift), so that a run can be played again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

/// A callout that the store has decided, and when its answer arrives.
struct Late {
    node: usize,
    callout: Callout,
    answer: Answer,
    arrives: Duration,
}

struct World {
    nodes: Vec<Host>,
    store: Store,
    late: Vec<Late>,
    /// Requests that wait, each with its user.
    waiting: Vec<(usize, Stream)>,
    admitted: [Vec<Duration>; USERS],
    chance: Chance,
}

impl World {
    fn now(&self) -> Duration {
        self.nodes[0].wall()
    }

    /// Brings questions to the store, which decides at once, and answers that are due to their nodes. One in ten answers
    /// is lost, and one in ten takes longer than anybody waits.
    fn carry(&mut self) {
        for node in 0..NODES {
            for callout in self.nodes[node].callouts() {
                if self.late.iter().any(|late| late.node == node && late.callout.id == callout.id) {
                    continue;
                }
                let decided = self.store.answer(&self.nodes[node], &callout);
                let (answer, takes) = match self.chance.below(10) {
                    0 => (Answer::connect_failure(), 2),
                    1 => (decided, 30),
                    _ => (decided, self.chance.below(4)),
                };
                let arrives = self.now() + MS * u32::try_from(takes).unwrap();
                self.late.push(Late { node, callout, answer, arrives });
            }
        }
        let now = self.now();
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|late| late.arrives <= now);
        self.late = late;
        for Late { node, callout, answer, .. } in Vec::from_iter::<Vec<Late>>(due) {
            self.nodes[node].answer(&callout, answer);
        }
    }

    /// Notes who was admitted meanwhile, and holds each window to its limit.
    fn judge(&mut self) {
        let now = self.now();
        for (user, stream) in std::mem::take(&mut self.waiting) {
            match stream.state() {
                State::Continued => {
                    let admitted = &mut self.admitted[user];
                    admitted.push(now);
                    for (limit, seconds) in WINDOWS {
                        let per = Duration::from_secs(seconds);
                        let within = admitted.iter().filter(|at| **at + per > now).count();
                        assert!(within <= limit, "{within} of {limit} within {seconds} s at {now:?}");
                    }
                    stream.end();
                }
                State::Replied(_) => stream.end(),
                _ => self.waiting.push((user, stream)),
            }
        }
    }
}

#[test]
fn no_window_is_over_its_limit_over_the_vms_of_several_nodes_with_late_and_lost_answers() {
    let windows = WINDOWS.map(|(limit, seconds)| json!({"limit": limit, "per": format!("{seconds}s")}));
    let policy = json!({
        "version": 1,
        "store": {"cluster": "lanekeeper", "timeout": "20ms", "on_failure": "closed", "max_drift": "10%",
            "circuit": {"failures": 1000, "slow": "20ms"}},
        "rate_limits": {"per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": windows}},
    });
    let mut world = World {
        nodes: (0..NODES).map(|_| start(&policy, WORKERS)).collect(),
        store: Store::new(),
        late: Vec::new(),
        waiting: Vec::new(),
        admitted: Default::default(),
        chance: Chance(0x9e37_79b9_7f4a_7c15),
    };
    world.store.nodes.set(Some(u32::try_from(NODES).unwrap()));
    for _ in 0..6000 {
        for _ in 0..world.chance.below(3) {
            let (node, worker) = (world.chance.below(NODES), world.chance.below(WORKERS));
            let user = world.chance.below(USERS);
            let stream = world.nodes[node].worker(worker).request(by(&format!("u{user}")));
            world.waiting.push((user, stream));
        }
        world.judge();
        world.carry();
        world.judge();
        let passes = MS * u32::try_from(world.chance.below(30)).unwrap();
        world.nodes.iter().for_each(|node| node.advance(passes));
    }
    let of_leases = |node: &Host| decisions(node, "normal", "per_user", "admitted", "lease");
    let leased: u64 = world.nodes.iter().map(of_leases).sum();
    let admitted: usize = world.admitted.iter().map(Vec::len).sum();
    assert!(leased > 250 && admitted > 500, "{leased} of {admitted} under leases");
    world.nodes.iter().for_each(behaved);
}
