//! A fake Envoy: a stateful proxy-wasm host that a test drives and then asks.
//!
//! A real Envoy cannot be made to let a worker lose a compare-and-swap, to answer a callout late, or to fail a host
//! call with a status that no SDK lists; and it takes seconds. This host runs the built plugin on wasmtime, in as
//! many VMs as an Envoy with some workers has, with one virtual clock, and follows Envoy where it is surprising:
//! resumes and local replies wait until the VM has returned, maps vanish when a stream goes on, a missing key can
//! be written with any cas, a callout's timeout is a 504. Nothing is scripted: no test says in advance which
//! calls the plugin makes.
//!
//! ```no_run
//! use std::time::Duration;
//! use lanekeeper_tests::host::{Answer, Host, Request, State};
//!
//! let host = Host::start(r#"{"version": 1}"#, 2).unwrap();
//! let stream = host.worker(0).request(Request::get("/v1/voucher").header("x-user", "u42"));
//! assert_eq!(stream.state(), State::Paused);
//!
//! host.answer(&host.callouts()[0], Answer::response(200, [("x-shim", "1")], "{}"));
//! assert_eq!(stream.state(), State::Continued);
//! stream.respond([(":status", "200")]);
//! stream.end();
//!
//! host.advance(Duration::from_secs(60));
//! assert_eq!(host.traps(), []);
//! ```
//!
//! What a test does is a turn of an event loop: messages in queues and callouts answered at once run at its end.
//! [`Host::turn`] makes one turn of several steps. The threads of a process are as many event loops; a hook
//! ([`Host::before_next`]) runs one of them in the midst of another.

#![allow(clippy::panic, clippy::expect_used, reason = "a harness fails as an assertion does")]

mod abi;
mod body;
mod builder;
mod call;
mod callout;
mod clock;
mod context;
mod flow;
mod half;
mod headers;
mod lifecycle;
mod log;
mod map;
mod metrics;
mod module;
mod process;
mod property;
mod reply;
mod root_calls;
mod shared;
mod status;
mod stream;
mod stream_calls;
mod vm;
mod vm_id;
mod wasi;
mod watch;
mod worker;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub use self::body::Body;
pub use self::builder::Builder;
pub use self::callout::{Answer, Callout};
pub use self::half::Message;
pub use self::headers::Headers;
pub use self::lifecycle::Refused;
pub use self::log::{Level, LogLine};
pub use self::module::{built_module, built_plugin};
use self::process::Process;
pub use self::reply::LocalReply;
pub use self::status::Status;
pub use self::stream::{Request, State, Stream};
pub use self::vm_id::VmId;
pub use self::watch::{Times, Trap, Work};
pub use self::worker::Worker;

/// One Envoy process. Clones are the same process.
#[derive(Clone)]
pub struct Host(Rc<Process>);

impl Host {
    /// Starts the built plugin with a configuration, in so many workers, with the cluster `lanekeeper`.
    ///
    /// # Errors
    ///
    /// When the plugin refuses the configuration.
    pub fn start(configuration: &str, workers: usize) -> Result<Self, Refused> {
        Builder::default().workers(workers).start(configuration)
    }

    /// Everything else that can be settled before the start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Brings a new configuration. Streams that are under way keep the old one.
    ///
    /// # Errors
    ///
    /// When the plugin refuses it; the old one then stays.
    pub fn reconfigure(&self, configuration: &str) -> Result<(), Refused> {
        self.0.in_turn(|| {
            self.0.try_in_canary(configuration.as_bytes())?;
            self.0.reconfigure_vms(configuration.as_bytes());
            Ok(())
        })
    }

    /// Brings a new configuration to the roots that there are, as a host may: their streams get it too.
    ///
    /// # Errors
    ///
    /// When the plugin refuses it; the old one then stays.
    pub fn configure_again(&self, configuration: &str) -> Result<(), Refused> {
        self.0.in_turn(|| {
            self.0.try_in_canary(configuration.as_bytes())?;
            self.0.configure_again(configuration.as_bytes());
            Ok(())
        })
    }

    /// Gives a worker a new VM, as Envoy does after a crash with `failure_policy: FAIL_RELOAD`. What the old one had in
    /// hand is lost.
    ///
    /// # Panics
    ///
    /// When there are fewer workers.
    pub fn reload(&self, index: usize) {
        let old = self.worker(index).vm;
        self.0.in_turn(|| self.0.reload(&old));
    }

    /// The worker at `index`.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn worker(&self, index: usize) -> Worker {
        self.thread(VmId::Worker(index))
    }

    /// The main thread.
    pub fn main(&self) -> Worker {
        self.thread(VmId::Main)
    }

    fn thread(&self, id: VmId) -> Worker {
        let vm = self.0.vm(id).unwrap_or_else(|| panic!("no {id}"));
        Worker { process: self.0.clone(), vm }
    }

    /// Moves both clocks, and runs what comes due on the way in the order of time: timers, timeouts, answers.
    pub fn advance(&self, span: Duration) {
        for vm in self.0.vms.borrow().iter() {
            vm.drop_deleted();
        }
        self.0.run_until(self.0.now() + span);
    }

    /// Runs several steps as one turn: no event comes between them.
    pub fn turn<R>(&self, steps: impl FnOnce() -> R) -> R {
        self.0.in_turn(steps)
    }

    /// The monotonic clock.
    pub fn monotonic(&self) -> Duration {
        self.0.now()
    }

    /// The wall clock, since 1970. It begins with 2026.
    pub fn wall(&self) -> Duration {
        self.0.clock.borrow().wall
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, since_1970: Duration) {
        self.0.clock.borrow_mut().wall = since_1970;
    }

    /// Callouts that wait for an answer, the oldest first.
    pub fn callouts(&self) -> Vec<Callout> {
        self.0.callouts.borrow().pending.values().cloned().collect()
    }

    /// Answers a callout. False when it is too late: it has been answered, given up, or cancelled.
    pub fn answer(&self, callout: &Callout, answer: Answer) -> bool {
        self.0.in_turn(|| self.0.answer(callout.id, answer))
    }

    /// Hands an answer to the VM though nobody waits for it, as a host must not.
    pub fn force_answer(&self, callout: &Callout, answer: Answer) {
        let vm = self.thread(callout.vm).vm;
        self.0.in_turn(|| vm.callout_response(callout.root, callout.token, answer));
    }

    /// From now on `answerer` looks at every callout when it is sent. None leaves it waiting.
    pub fn answer_callouts(&self, answerer: impl FnMut(&Callout) -> Option<Answer> + 'static) {
        *self.0.answerer.borrow_mut() = Some(Box::new(answerer));
    }

    /// A cluster comes: callouts to it are sent.
    pub fn add_cluster(&self, name: &str) {
        self.0.clusters.borrow_mut().insert(name.to_owned());
    }

    /// A cluster goes: callouts to it are a `BadArgument`.
    pub fn remove_cluster(&self, name: &str) {
        self.0.clusters.borrow_mut().remove(name);
    }

    /// Sets an attribute of the proxy, such as `["xds", "node", "id"]`, which roots see as well as streams.
    pub fn set_property(&self, path: &[&str], value: impl AsRef<[u8]>) {
        self.0.properties.borrow_mut().set(path, Ok(value.as_ref().to_vec()));
    }

    /// The value under a key of shared data, and its cas.
    pub fn shared_data(&self, key: impl AsRef<[u8]>) -> Option<(Vec<u8>, u32)> {
        let shared = self.0.shared.borrow();
        shared.get(key.as_ref()).map(|(value, cas)| (value.to_vec(), cas))
    }

    /// Writes shared data, like another plugin under the same vm_id.
    ///
    /// # Errors
    ///
    /// `CasMismatch`, when the key is there with another cas than this one, which is not 0.
    pub fn set_shared_data(&self, key: impl AsRef<[u8]>, value: &[u8], cas: u32) -> Result<(), Status> {
        self.0.shared.borrow_mut().set(key.as_ref(), value, cas)
    }

    /// All keys of shared data, in order.
    pub fn shared_keys(&self) -> Vec<Vec<u8>> {
        self.0.shared.borrow().keys()
    }

    /// How many bytes shared data holds, keys included.
    pub fn shared_bytes(&self) -> usize {
        self.0.shared.borrow().bytes()
    }

    /// The names of all queues, and how many messages lie in each.
    pub fn queues(&self) -> Vec<(String, usize)> {
        self.0.queues.borrow().lengths()
    }

    /// The value of a counter, if it is defined.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.0.metrics.borrow().counter(name)
    }

    /// The value of a gauge, if it is defined.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.0.metrics.borrow().gauge(name)
    }

    /// What a histogram has recorded, in order, if it is defined.
    pub fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        self.0.metrics.borrow().histogram(name)
    }

    /// The names of all metrics.
    pub fn metric_names(&self) -> Vec<String> {
        self.0.metrics.borrow().names()
    }

    /// What the plugin logged, of the level that was settled and graver ones.
    pub fn log(&self) -> Vec<LogLine> {
        self.0.log.borrow().clone()
    }

    /// VMs that failed.
    pub fn traps(&self) -> Vec<Trap> {
        self.0.traps.borrow().clone()
    }

    /// What the plugin did that Envoy answers with an assertion or a hung stream, such as resuming what is not
    /// paused.
    pub fn misuses(&self) -> Vec<String> {
        self.0.misuses.borrow().clone()
    }

    /// How often each host call was made, since the start or [`reset_counts`](Self::reset_counts).
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.0.watch.borrow().calls()
    }

    /// What each callback took, if the host was built [`metered`](Builder::metered).
    pub fn work(&self) -> BTreeMap<&'static str, Work> {
        self.0.watch.borrow().work()
    }

    /// Counts calls and work from zero.
    pub fn reset_counts(&self) {
        self.0.watch.borrow_mut().reset();
    }

    /// The host call `call` does nothing and gives `status`, a [`Status`] or any other number.
    pub fn fail(&self, call: &str, status: impl Into<u32>, times: Times) {
        self.0.watch.borrow_mut().set_fault(call, status.into(), times);
    }

    /// The host call `call` works again.
    pub fn heal(&self, call: &str) {
        self.0.watch.borrow_mut().heal(call);
    }

    /// Runs `hook` right before the next time that the VM `vm` makes the host call `call`. The hook may drive the
    /// other threads; what it does to them is over when the call goes on.
    pub fn before_next(&self, vm: VmId, call: &str, hook: impl FnOnce(&Host) + 'static) {
        self.0.watch.borrow_mut().add_hook(vm, call, Box::new(hook));
    }
}
