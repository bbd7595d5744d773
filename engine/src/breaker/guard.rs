//! One worker's side of one breaker.
//!
//! On the closed path a call costs no host call: the worker looks at its copy of the record, which is a few
//! milliseconds old, and keeps what it sees to itself for a moment. A failure is never kept back, though, nor is a
//! success that would trip: so the workers trip together.

use std::sync::Arc;
use std::time::Duration;

use super::pool::{self, Address};
use super::record::{Chance, Door, Record, Role};
use super::settings::{Control, Settings};
use super::tally::Tally;
use super::window::Counts;
use super::{AGAIN_SOON, Outcome, Permit, State, Turn, Why};
use crate::local::{Cells, CellsBroken};
use crate::units::Timestamp;

/// A call looks at the record itself when the copy is as old as this.
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// Places that a worker does not use, or that it lacks, are looked at this often.
const LOOK_AT_PLACES_EVERY: Duration = Duration::from_millis(100);

/// What a breaker is looked at with.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) cells: &'a dyn Cells,
    pub(super) worker: u64,
    pub(super) now: Timestamp,
    pub(super) chance: Chance<'a>,
}

/// A worker's view of a breaker.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) owner: Arc<str>,
    pub(super) settings: Arc<Settings>,
    address: Address,
    /// The record as it was read or written last.
    view: Record,
    seen_at: Option<Timestamp>,
    /// What this worker has not told the others yet; of the view's generation.
    tally: Tally,
    /// Calls of this worker under way that have a place.
    under_way: u32,
    /// Whether a call came since the places were looked at.
    is_in_use: bool,
    /// What this worker has changed last and not reported.
    pub(super) turn: Option<Turn>,
}

/// Whether a call may go.
pub(super) enum Entered {
    In(Permit),
    Out(Why, Duration),
}

impl Guard {
    pub(super) fn new(owner: &str, settings: Arc<Settings>, address: Address) -> Self {
        Self {
            owner: owner.into(),
            settings,
            address,
            view: Record::default(),
            seen_at: None,
            tally: Tally::default(),
            under_way: 0,
            is_in_use: false,
            turn: None,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.address.id
    }

    pub(super) fn state(&self) -> State {
        self.view.state()
    }

    pub(super) fn generation(&self) -> u64 {
        self.view.generation
    }

    /// The state and generation as they stand in the record; those seen last, where it cannot be read.
    pub(super) fn current(&self, cells: &dyn Cells) -> (State, u64) {
        let of = |record: &Record| (record.state(), record.generation);
        pool::read(cells, self.address).map_or_else(|CellsBroken| of(&self.view), |record| of(&record))
    }

    /// The permit of a call that goes although there is no place for it: what comes of it counts while it is closed.
    pub(super) fn without_place(&self) -> Option<Permit> {
        (self.state() == State::Closed).then(|| self.permit(Role::Call, false))
    }

    /// Goes on under other settings, with the same state.
    pub(super) fn follow(&mut self, settings: &Arc<Settings>) {
        if !Arc::ptr_eq(&self.settings, settings) {
            self.settings = Arc::clone(settings);
            self.seen_at = None;
        }
    }

    /// A call comes.
    pub(super) fn enter(&mut self, site: Site<'_>) -> Result<Entered, CellsBroken> {
        self.is_in_use = true;
        let is_young = self.look(site)?;
        match self.view.door(&self.settings, site.now) {
            Door::Shut(why, wait) => Ok(Entered::Out(why, wait)),
            Door::Free if self.has_place(site) => Ok(Entered::In(self.let_in(Role::Call))),
            Door::Free if is_young && self.is_full(site) => Ok(Entered::Out(Why::Full, AGAIN_SOON)),
            Door::Free | Door::Stuck => self.ask(site),
        }
    }

    /// A call that was let in has ended.
    pub(super) fn leave(
        &mut self,
        permit: &Permit,
        outcome: Outcome,
        site: Site<'_>,
    ) -> Result<(), CellsBroken> {
        if permit.has_place {
            self.under_way = self.under_way.saturating_sub(1);
        }
        let counts = self.counts(outcome);
        let is_current = permit.generation == self.view.generation;
        match (permit.role, counts) {
            (Role::Probe, _) if is_current => return self.tell(counts, site),
            (Role::Call, Some(counts)) if is_current && self.state() == State::Closed => {
                self.tally.count(counts, self.settings.window, site.now);
                if self.is_telling(counts, site.now) {
                    return self.publish(site);
                }
            }
            // an earlier state's, or one that says nothing
            (Role::Probe | Role::Call, _) => {}
        }
        if self.is_spare(site) { self.publish(site) } else { Ok(()) }
    }

    /// Looks after what is due.
    pub(super) fn tick(&mut self, site: Site<'_>) -> Result<(), CellsBroken> {
        if self.due(site.worker).is_none_or(|due| site.now < due) {
            return Ok(());
        }
        let is_idle = !std::mem::take(&mut self.is_in_use) && self.under_way == 0;
        if is_idle || self.is_unpublished(site.now) || !self.is_renewed(site) {
            return self.settle(is_idle, site);
        }
        self.read(site)?;
        if self.is_spare(site) || self.is_short(site.worker) { self.settle(false, site) } else { Ok(()) }
    }

    /// No call comes any more.
    pub(super) fn retire(&mut self, site: Site<'_>) -> Result<(), CellsBroken> {
        if self.due(site.worker).is_some() { self.settle(true, site) } else { Ok(()) }
    }

    /// When it is to be looked after next.
    pub(super) fn due(&self, worker: u64) -> Option<Timestamp> {
        let is_even = self.view.places.of(worker) == self.under_way;
        let uneven = (!is_even).then(|| self.seen_at.unwrap_or_default().plus(LOOK_AT_PLACES_EVERY));
        [self.tally.due(), self.view.places.renewal(worker), uneven].into_iter().flatten().min()
    }

    /// What an outcome counts for.
    fn counts(&self, outcome: Outcome) -> Option<Counts> {
        let slow = |took: Duration| took > self.settings.slow_call.over;
        match outcome {
            Outcome::Success { took } => Some(Counts::of(false, slow(took))),
            Outcome::Failure { took } => Some(Counts::of(true, slow(took))),
            Outcome::Ignored => None,
        }
    }

    /// Tells the others what they should know, and sees to it that the view is young; but not where it does not matter:
    /// nobody opens a breaker before its time, and who asks the record itself need not look before. Says whether it is.
    fn look(&mut self, site: Site<'_>) -> Result<bool, CellsBroken> {
        if self.is_unpublished(site.now) {
            self.publish(site)?;
        }
        let is_young = self.seen_at.is_some_and(|seen_at| site.now < seen_at.plus(LOOK_AFTER));
        let matters = match self.view.door(&self.settings, site.now) {
            Door::Free => self.has_place(site),
            Door::Shut(why, _) => why != Why::Open,
            Door::Stuck => false,
        };
        if is_young || !matters {
            return Ok(is_young);
        }
        self.read(site)?;
        Ok(true)
    }

    /// Whether what just ended is to be told at once.
    fn is_telling(&self, counts: Counts, now: Timestamp) -> bool {
        let is_bad = counts.failures > 0 || counts.slow > 0;
        let ends_run = self.settings.consecutive_failures.is_some() && self.view.run > 0;
        if self.is_unpublished(now) {
            return true;
        }
        match self.settings.control {
            Control::ForceClosed => false,
            _ => is_bad || ends_run || self.view.would_trip(&self.tally, &self.settings),
        }
    }

    fn is_unpublished(&self, now: Timestamp) -> bool {
        self.tally.due().is_some_and(|due| due <= now)
    }

    fn is_renewed(&self, site: Site<'_>) -> bool {
        self.view.places.renewal(site.worker).is_none_or(|renewal| site.now < renewal)
    }

    fn most(&self) -> Option<u32> {
        self.settings.max_concurrent.map(std::num::NonZeroU32::get)
    }

    /// Whether a call may be let in without asking for a place.
    fn has_place(&self, site: Site<'_>) -> bool {
        self.most().is_none() || (self.view.places.of(site.worker) > self.under_way && self.is_renewed(site))
    }

    fn is_full(&self, site: Site<'_>) -> bool {
        let places = &self.view.places;
        self.most().is_some_and(|most| places.free(most, site.now) == 0)
            && places.of(site.worker) <= self.under_way
    }

    fn is_spare(&self, site: Site<'_>) -> bool {
        let places = &self.view.places;
        let most = self.most().unwrap_or_default();
        places.of(site.worker) > 0 && places.is_spare(site.worker, self.under_way, most, site.now)
    }

    /// Whether calls are under way for which this worker has no place: it was taken for gone.
    fn is_short(&self, worker: u64) -> bool {
        self.view.places.of(worker) < self.under_way
    }

    fn let_in(&mut self, role: Role) -> Permit {
        let has_place = self.most().is_some();
        self.under_way = self.under_way.saturating_add(has_place.into());
        self.permit(role, has_place)
    }

    fn permit(&self, role: Role, has_place: bool) -> Permit {
        Permit { id: self.address.id, generation: self.view.generation, role, has_place }
    }

    /// Asks the record itself for a way in.
    fn ask(&mut self, site: Site<'_>) -> Result<Entered, CellsBroken> {
        let (under_way, most) = (self.under_way, self.most());
        let settings = Arc::clone(&self.settings);
        let way = self.update(site, |record| {
            let turn = record.prepare(&settings, site.now, site.chance);
            if let Door::Shut(why, wait) = record.door(&settings, site.now) {
                return (Err((why, wait)), turn);
            }
            if most.is_some_and(|most| !record.places.reserve(site.worker, under_way, most, site.now)) {
                return (Err((Why::Full, AGAIN_SOON)), turn);
            }
            (record.admit(&settings, site.now).ok_or((Why::HalfOpen, AGAIN_SOON)), turn)
        })?;
        Ok(match way {
            Ok(role) => Entered::In(self.let_in(role)),
            Err((why, wait)) => Entered::Out(why, wait),
        })
    }

    /// Tells the record how a probe of the view's generation ended.
    fn tell(&mut self, counts: Option<Counts>, site: Site<'_>) -> Result<(), CellsBroken> {
        let (generation, under_way, most) = (self.view.generation, self.under_way, self.most());
        let settings = Arc::clone(&self.settings);
        self.update(site, |record| {
            let is_current = record.generation == generation;
            let turn = is_current.then(|| record.hear(counts, &settings, site.now, site.chance)).flatten();
            record.places.settle(site.worker, under_way, false, most.unwrap_or_default(), site.now);
            ((), turn)
        })
    }

    fn publish(&mut self, site: Site<'_>) -> Result<(), CellsBroken> {
        self.settle(false, site)
    }

    /// Tells what was not told, and gives back what is not needed.
    fn settle(&mut self, is_idle: bool, site: Site<'_>) -> Result<(), CellsBroken> {
        let (under_way, most) = (self.under_way, self.most().unwrap_or_default());
        self.update(site, |record| {
            record.places.settle(site.worker, under_way, is_idle, most, site.now);
            ((), None)
        })
    }

    fn read(&mut self, site: Site<'_>) -> Result<(), CellsBroken> {
        let record = pool::read(site.cells, self.address)?;
        self.see(record, site.now);
        Ok(())
    }

    fn see(&mut self, record: Record, now: Timestamp) {
        if record.generation != self.view.generation {
            self.tally.clear();
        }
        self.view = record;
        self.seen_at = Some(now);
    }

    /// Changes the record, after what was not told is counted in it.
    fn update<T>(
        &mut self,
        site: Site<'_>,
        change: impl Fn(&mut Record) -> (T, Option<Turn>),
    ) -> Result<T, CellsBroken> {
        let Site { cells, worker, now, chance } = site;
        let ((outcome, turn), record) = pool::update(cells, self.address, |record| {
            let before = record.clone();
            let is_current = record.generation == self.view.generation;
            let tripped =
                is_current.then(|| record.count(&self.tally, &self.settings, now, chance)).flatten();
            let (outcome, turn) = change(record);
            let is_late = record.places.renewal(worker).is_some_and(|renewal| renewal <= now);
            let is_changed = *record != before || is_late;
            if is_changed {
                record.places.renew(worker, now);
            }
            ((outcome, turn.or(tripped)), is_changed)
        })?;
        self.tally.clear();
        self.see(record, now);
        self.turn = turn.or(self.turn.take());
        Ok(outcome)
    }
}
