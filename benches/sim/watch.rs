//! What is watched at every step: who is admitted, whether they may be, and what an oracle would have said.

use super::log::Log;
use super::scenario::Scenario;
use super::world::DRAINED_WITHIN;

/// Every subject's exact log, and the oracle's.
pub(super) struct Watch {
    clients: Vec<Client>,
    subjects: Vec<Subject>,
}

/// Who asks, and which subjects each request counts for: its own, and that of all where there is one.
#[derive(Default)]
struct Client {
    admitted: u32,
    fair: u32,
    refused_by_oracle: bool,
}

struct Subject {
    admitted: Vec<Log>,
    /// None where no oracle judges.
    fair: Vec<Log>,
    /// Charges that a failover lost.
    lost: u64,
}

/// A promise that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Whose window has too many.
    pub(super) subject: u32,
    /// Which of its windows.
    pub(super) window: usize,
}

impl Watch {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let (mut clients, mut subjects) = (Vec::new(), Vec::new());
        let logs = |windows: &[_]| -> Vec<Log> {
            windows.iter().map(|window| Log::of(window, scenario.lasts + DRAINED_WITHIN)).collect()
        };
        for population in &scenario.populations {
            for _ in 0..population.clients {
                let admitted = logs(&population.windows);
                let fair = if population.judged { admitted.clone() } else { Vec::new() };
                subjects.push(Subject { admitted, fair, lost: 0 });
                clients.push(Client::default());
            }
        }
        if let Some(windows) = &scenario.shared {
            subjects.push(Subject { admitted: logs(windows), fair: logs(windows), lost: 0 });
        }
        Self { clients, subjects }
    }

    /// The subjects of a client's requests.
    fn subjects_of(&self, client: u32) -> impl Iterator<Item = u32> + use<> {
        let shared = (self.subjects.len() > self.clients.len()).then_some(self.clients.len());
        std::iter::once(client).chain(shared.and_then(|shared| u32::try_from(shared).ok()))
    }

    /// A request has come: the oracle judges it.
    pub(super) fn asked(&mut self, client: u32, at: u64) {
        let judged = self.subjects.get(client as usize).is_some_and(|subject| !subject.fair.is_empty());
        if !judged {
            return;
        }
        let mut refused = false;
        for subject in self.subjects_of(client) {
            let logs = self.subjects.get_mut(subject as usize).map(|subject| &mut subject.fair);
            refused |= logs.into_iter().flatten().any(|log| log.is_full(at));
        }
        if !refused {
            for subject in self.subjects_of(client) {
                let logs = self.subjects.get_mut(subject as usize).map(|subject| &mut subject.fair);
                logs.into_iter().flatten().for_each(|log| _ = log.admit(at));
            }
        }
        if let Some(client) = self.clients.get_mut(client as usize) {
            client.fair += u32::from(!refused);
            client.refused_by_oracle |= refused;
        }
    }

    /// A request was admitted: may it be?
    pub(super) fn admitted(&mut self, client: u32, at: u64) -> Option<Violation> {
        let mut violation = None;
        for subject in self.subjects_of(client) {
            let logs = self.subjects.get_mut(subject as usize).map(|subject| &mut subject.admitted);
            for (window, log) in logs.into_iter().flatten().enumerate() {
                if !log.admit(at) {
                    violation = Some(Violation { subject, window });
                }
            }
        }
        if let Some(client) = self.clients.get_mut(client as usize) {
            client.admitted += 1;
        }
        violation
    }

    /// A failover lost charges of a subject.
    pub(super) fn lost(&mut self, subject: u32, tokens: u64) {
        if let Some(subject) = self.subjects.get_mut(subject as usize) {
            subject.lost += tokens;
        }
    }

    /// The first subject that was admitted more beyond a limit than what was lost.
    pub(super) fn beyond_what_was_lost(&self) -> Option<Violation> {
        self.subjects.iter().zip(0..).find_map(|(subject, number)| {
            let window = subject.admitted.iter().position(|log| log.excess() > subject.lost)?;
            Some(Violation { subject: number, window })
        })
    }

    /// All charges that failovers lost.
    pub(super) fn lost_in_all(&self) -> u64 {
        self.subjects.iter().map(|subject| subject.lost).sum()
    }

    /// The most that any window ever held beyond its limit, as a share of that.
    pub(super) fn over_admission(&self) -> f64 {
        self.subjects.iter().flat_map(|subject| &subject.admitted).map(Log::over).fold(0.0, f64::max)
    }

    /// What the oracle admits that was not, of those clients who asked for more than they may.
    pub(super) fn under_admission(&self) -> f64 {
        let pressed = self.clients.iter().filter(|client| client.refused_by_oracle);
        let (admitted, fair) = pressed.fold((0_u64, 0_u64), |(admitted, fair), client| {
            (admitted + u64::from(client.admitted), fair + u64::from(client.fair))
        });
        if fair == 0 { 0.0 } else { (1.0 - admitted as f64 / fair as f64).max(0.0) }
    }
}
