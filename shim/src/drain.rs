//! How a shim leaves while others ask it, and no question is lost.
//!
//! ```text
//!   Serving --- told to stop ---> Closing --- no listener any more ---> Leaving
//! ```
//!
//! Callers keep connections. One that is closed under a caller may have a question on its way, so the shim asks
//! them to leave: each answer says `connection: close`. That must not begin before its own listener is closed, or they
//! would come back to the one that leaves instead of the one that takes over.

use tokio::sync::watch;

/// How far it is with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It stays.
    Serving,
    /// It takes the connections that are there already, and no more.
    Closing,
    /// Whoever is answered is asked to leave.
    Leaving,
}

/// What all parts of a shim know of its leaving.
#[derive(Clone)]
pub(crate) struct Drain(watch::Sender<Phase>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }

    /// It is told to stop.
    pub(crate) fn begin(&self) {
        self.0.send_replace(Phase::Closing);
    }

    /// Nobody can come back to it.
    pub(crate) fn leave(&self) {
        self.0.send_replace(Phase::Leaving);
    }

    /// Whether it was told to stop.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() >= Phase::Closing
    }

    /// Whether callers are to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.0.borrow() == Phase::Leaving
    }

    /// Until it is told to stop.
    pub(crate) async fn begun(&self) {
        // Its own sender is here, so it cannot end otherwise.
        let _ = self.0.subscribe().wait_for(|phase| *phase >= Phase::Closing).await;
    }
}
