//! A store that never answers.

use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, KeyReturn, KeySpent, Recorded, Returned, StoreError};
use lanekeeper_shim::store::{Answering, NotReady, Store};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::PATIENT;

/// A store that never answers, and says how many questions it works on.
#[derive(Clone)]
pub(crate) struct Endless(watch::Sender<usize>);

/// A question that is worked on, until it is dropped.
struct Work<'a>(&'a Endless);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|working| *working -= 1);
    }
}

impl Endless {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(crate) async fn until_working_on(&self, count: usize) {
        let mut working = self.0.subscribe();
        let reached = working.wait_for(|working| *working == count);
        timeout(PATIENT, reached).await.unwrap_or_else(|_| panic!("never {count} questions")).unwrap();
    }
}

impl Store for Endless {
    fn decide<'a>(&'a self, _: &'a [Check], _: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        Box::pin(async {
            self.0.send_modify(|working| *working += 1);
            let _work = Work(self);
            std::future::pending().await
        })
    }

    fn record<'a>(&'a self, _: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        unreachable!("nothing is told here")
    }

    fn give_back<'a>(&'a self, _: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        unreachable!("nothing is given back here")
    }

    fn reset<'a>(&'a self, _: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        unreachable!("nothing is reset here")
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        Box::pin(async { Ok(()) })
    }
}
