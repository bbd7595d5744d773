//! The contexts of a VM: roots, one for each configuration, and their streams.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::callout::Reception;
use super::flow::StreamState;

/// A stream as the host holds it.
pub(super) type StreamCell = Rc<RefCell<StreamState>>;

/// What an id of a VM stands for.
#[derive(Clone)]
pub(super) enum Context {
    Root(Rc<Root>),
    Stream(StreamCell),
}

/// Where a root is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootLife {
    /// The current configuration.
    Active,
    /// A later configuration has taken over; it waits for its streams to end.
    Superseded,
    /// Told that it is done, and asked for time until `proxy_done`.
    Finishing,
    /// Deleted.
    Gone,
}

/// A root's timer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timer {
    pub(super) period: Duration,
    /// Counts up each time the timer is set: a tick of an older arming is void.
    pub(super) arming: u64,
}

/// A root context, which is one configuration in one VM.
pub(super) struct Root {
    pub(super) id: u32,
    pub(super) configuration: RefCell<Vec<u8>>,
    /// Whether the configuration can be read: only while the root is created and configured.
    pub(super) configuring: Cell<bool>,
    pub(super) life: Cell<RootLife>,
    pub(super) streams: Cell<usize>,
    pub(super) timer: Cell<Timer>,
    /// The response of the callout whose callback is running.
    pub(super) reception: RefCell<Option<Reception>>,
    /// Why the callout failed whose callback is running.
    pub(super) failure: Cell<Option<&'static str>>,
}

impl Root {
    pub(super) fn new(id: u32, configuration: &[u8]) -> Rc<Self> {
        Rc::new(Self {
            id,
            configuration: RefCell::new(configuration.to_vec()),
            configuring: Cell::new(false),
            life: Cell::new(RootLife::Active),
            streams: Cell::new(0),
            timer: Cell::default(),
            reception: RefCell::default(),
            failure: Cell::default(),
        })
    }
}
