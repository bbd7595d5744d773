//! What is simulated: nodes, clients, and what goes wrong.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::window::{Algorithm, Window, WindowError};

use super::network::Network;
use crate::limits;

/// The policy's `max_drift` everywhere: 1 %.
pub(super) const DRIFT: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// The policy's `timeout` everywhere.
pub(super) const TIMEOUT: Duration = Duration::from_millis(20);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// One simulation.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, as on the command line and in the record.
    pub name: String,
    /// How much of it.
    pub size: Size,
    /// What it is, for people.
    pub says: String,
    /// How many nodes.
    pub nodes: u32,
    /// How many workers each node has.
    pub workers: u32,
    /// For how long requests come; at most an hour.
    pub lasts: Duration,
    /// Who asks.
    pub populations: Vec<Population>,
    /// A further key of every request, which all clients share.
    pub shared: Option<Arc<[Window]>>,
    /// Between the nodes and the store.
    pub network: Network,
    /// What breaks.
    pub troubles: Troubles,
    /// Whether it is held to the goals of the one hot subject, or of the production load.
    pub goals: Option<Goals>,
}

/// Clients that are alike.
#[derive(Clone, Debug)]
pub struct Population {
    /// How many.
    pub clients: u32,
    /// How much all of them ask, in the order of time; the first from the start on.
    pub phases: Vec<Phase>,
    /// What each may.
    pub windows: Arc<[Window]>,
    /// Whether an oracle judges the same requests, to say what was refused for no reason.
    pub judged: bool,
}

/// Requests a second, from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Since when.
    pub from: Duration,
    /// Of all clients of the population together.
    pub per_sec: f64,
}

/// What breaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// A node crashes so often on average, with all that it holds, and is back at once.
    pub nodes_crash_every: Option<Duration>,
    /// The same of one worker's VM: what the workers share stays.
    pub workers_crash_every: Option<Duration>,
    /// The share of writes to shared data that find that another worker was faster.
    pub lost_races: f64,
    /// A replica takes over from the store.
    pub failover: Option<Failover>,
}

/// Replicas and how they take over.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// How often.
    pub every: Duration,
    /// How many times: so many replicas there are.
    pub times: u32,
    /// How far the replicas are behind.
    pub lag: Duration,
    /// How long nobody answers.
    pub away: Duration,
    /// By how much the new master's clock is behind the old one's.
    pub clock_back: Duration,
    /// Whether an answer waits until the replicas have what it is about.
    pub waits: bool,
}

/// The figures to reach.
#[derive(Clone, Copy, Debug)]
pub struct Goals {
    /// The least share of decisions that do not wait for the store.
    pub local_share: f64,
    /// The most commands for one decision.
    pub commands: f64,
    /// The most requests that wait.
    pub waited_share: f64,
}

/// How much is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// What the figures on file are of.
    Full,
    /// Fewer clients, each with the same demand.
    Short,
}

impl Size {
    fn of<T>(self, full: T, short: T) -> T {
        match self {
            Self::Full => full,
            Self::Short => short,
        }
    }
}

/// Every scenario.
pub fn all(size: Size) -> Result<Vec<Scenario>, WindowError> {
    let all = [
        production,
        hot_subject,
        hundred_nodes,
        quiet_near_limit,
        all_algorithms,
        several_keys,
        crashes,
        failover,
        failover_async,
    ];
    all.into_iter().map(|scenario| Ok(Scenario { size, ..scenario(size)? })).collect()
}

impl Scenario {
    /// Whether nothing breaks that a request could fail by.
    pub fn is_healthy(&self) -> bool {
        let Troubles { nodes_crash_every, workers_crash_every, failover, .. } = self.troubles;
        nodes_crash_every.is_none() && workers_crash_every.is_none() && failover.is_none()
    }

    /// Whether a failover may lose what was answered.
    pub fn may_lose(&self) -> bool {
        self.troubles.failover.is_some_and(|failover| !failover.waits)
    }

    /// Whether answers wait for the replicas.
    pub(super) fn waits_for_replicas(&self) -> bool {
        self.troubles.failover.is_some_and(|failover| failover.waits)
    }

    /// How many requests come, about.
    pub fn requests(&self) -> u64 {
        let until = |phases: &[Phase], at: usize| {
            phases.get(at + 1).map_or(self.lasts, |next| next.from.min(self.lasts))
        };
        let of_phase = |phases: &[Phase], at: usize, phase: &Phase| {
            until(phases, at).saturating_sub(phase.from).as_secs_f64() * phase.per_sec
        };
        let of = |population: &Population| -> f64 {
            let phases = population.phases.as_slice();
            phases.iter().enumerate().map(|(at, phase)| of_phase(phases, at, phase)).sum()
        };
        self.populations.iter().map(of).sum::<f64>() as u64
    }
}

/// The users of the production load: each asks the same in every size.
fn users(hot: u32, cold: u32, phases: &[(u64, f64)]) -> Result<Vec<Population>, WindowError> {
    let windows: Arc<[Window]> = Arc::new([sliding(6_000, MINUTE)?, sliding(200_000, HOUR)?]);
    let of = |clients: u32, each: f64, judged| Population {
        clients,
        phases: phases.iter().map(|&(from, times)| phase(from, f64::from(clients) * each * times)).collect(),
        windows: Arc::clone(&windows),
        judged,
    };
    Ok(vec![of(hot, 800.0, true), of(cold, 2.0, false)])
}

fn production(size: Size) -> Result<Scenario, WindowError> {
    let (hot, cold) = size.of((1_000, 100_000), (10, 1_000));
    Ok(Scenario {
        says: format!(
            "{hot} hot users send 80 % of {} requests/s and {cold} others the rest, for 90 s with a spike of twice as many from 30 s to 40 s; each may 6,000 a minute and 200,000 an hour",
            hot * 1_000
        ),
        goals: Some(Goals { local_share: 0.90, commands: 0.15, waited_share: 0.08 }),
        ..scenario("production", 10, 4, 90, users(hot, cold, &[(0, 1.0), (30, 2.0), (40, 1.0)])?)
    })
}

fn hot_subject(size: Size) -> Result<Scenario, WindowError> {
    let limit: u32 = size.of(6_000_000, 600_000);
    let full = f64::from(limit) / 60.0;
    let phases = vec![
        phase(0, 0.5 * full),
        phase(20, 0.95 * full),
        phase(40, 1.5 * full),
        phase(60, 3.0 * full),
        phase(80, 8.0 * full),
    ];
    let population =
        Population { clients: 1, phases, windows: Arc::new([sliding(limit, MINUTE)?]), judged: true };
    Ok(Scenario {
        says: format!(
            "one subject of {limit} a minute, asked for 50, 95, 150, 300 and 800 % of it, 20 s each"
        ),
        goals: Some(Goals { local_share: 0.99, commands: 0.01, waited_share: 0.001 }),
        ..scenario("hot_subject", 10, 4, 100, vec![population])
    })
}

fn hundred_nodes(size: Size) -> Result<Scenario, WindowError> {
    let (hot, cold) = size.of((200, 20_000), (10, 1_000));
    Ok(Scenario {
        says: format!(
            "the production load of {hot} hot users and {cold} others on a hundred nodes, for 70 s"
        ),
        ..scenario("hundred_nodes", 100, 2, 70, users(hot, cold, &[(0, 1.0)])?)
    })
}

fn quiet_near_limit(size: Size) -> Result<Scenario, WindowError> {
    let clients: u32 = size.of(300, 30);
    let of = |share: f64| -> Result<Population, WindowError> {
        let phases = vec![phase(0, share * 10.0 * f64::from(clients))];
        Ok(Population { clients, phases, windows: Arc::new([sliding(600, MINUTE)?]), judged: true })
    };
    let populations = vec![of(0.9)?, of(1.1)?, of(2.0)?];
    Ok(Scenario {
        says: format!(
            "{} subjects of 600 a minute ask for 90, 110 and 200 % of it: one request a second and node",
            3 * clients
        ),
        ..scenario("quiet_near_limit", 10, 4, size.of(300, 130), populations)
    })
}

fn all_algorithms(size: Size) -> Result<Scenario, WindowError> {
    let clients: u32 = size.of(50, 5);
    let mut populations = Vec::new();
    for algorithm in ["sliding_window", "sliding_log", "fixed_window", "token_bucket"] {
        for share in [0.5, 1.1, 4.0] {
            let windows: [Window; 2] = [
                limits::window(algorithm, 1_000, Duration::from_secs(10))?,
                limits::window(algorithm, 4_000, MINUTE)?,
            ];
            let phases = vec![phase(0, share * f64::from(clients) * 100.0)];
            populations.push(Population { clients, phases, windows: windows.into(), judged: true });
        }
    }
    Ok(Scenario {
        says: "sliding_window, sliding_log, fixed_window and token_bucket, each of 1,000 in 10 s and 4,000 a minute, asked for 50, 110 and 400 %".into(),
        ..scenario("all_algorithms", 10, 2, 130, populations)
    })
}

fn several_keys(size: Size) -> Result<Scenario, WindowError> {
    let clients: u32 = size.of(200, 20);
    let all = 600 * clients;
    let of = |clients: u32, each: f64| -> Result<Population, WindowError> {
        let phases =
            vec![phase(0, 0.7 * f64::from(clients) * each), phase(60, 1.5 * f64::from(clients) * each)];
        Ok(Population { clients, phases, windows: Arc::new([sliding(1_200, MINUTE)?]), judged: true })
    };
    Ok(Scenario {
        says: format!(
            "every request counts for its user (1,200 a minute) and for all {clients} users ({all} a minute), who ask for 70 and then for 150 % of it; some ask for three times their own limit"
        ),
        shared: Some(Arc::new([sliding(all, MINUTE)?])),
        ..scenario(
            "several_keys",
            10,
            4,
            130,
            vec![of(clients - clients / 10, 5.0)?, of(clients / 10, 60.0)?],
        )
    })
}

/// Few subjects, whose windows pass many times.
fn busy(clients: u32) -> Result<Vec<Population>, WindowError> {
    let windows: Arc<[Window]> = Arc::new([sliding(1_000, Duration::from_secs(5))?, sliding(8_000, MINUTE)?]);
    let of = |share: f64| Population {
        clients,
        phases: vec![phase(0, share * f64::from(clients) * 200.0)],
        windows: Arc::clone(&windows),
        judged: true,
    };
    Ok(vec![of(0.3), of(1.1), of(3.0)])
}

fn crashes(size: Size) -> Result<Scenario, WindowError> {
    let clients = size.of(20, 2);
    Ok(Scenario {
        says: format!(
            "{} busy subjects of 1,000 in 5 s and 8,000 a minute; nodes and workers crash, messages are lost, doubled and late, races are lost",
            3 * clients
        ),
        network: Network::BAD,
        troubles: Troubles {
            nodes_crash_every: Some(Duration::from_millis(1_500)),
            workers_crash_every: Some(Duration::from_millis(700)),
            lost_races: 0.02,
            failover: None,
        },
        ..scenario("crashes", 10, 4, size.of(200, 100), busy(clients)?)
    })
}

/// Replicas a little behind, and no answer before they have what it is about.
const WAITS: Failover = Failover {
    every: Duration::from_secs(13),
    times: 5,
    lag: Duration::from_millis(3),
    away: Duration::from_millis(700),
    clock_back: Duration::from_millis(900),
    waits: true,
};

fn failover(size: Size) -> Result<Scenario, WindowError> {
    let clients = size.of(20, 2);
    Ok(Scenario {
        says: "the same subjects on a bad network; five times the store is lost with what its replicas did not have, and theirs is a clock that is behind. An answer waits for the replicas".into(),
        network: Network::BAD,
        troubles: Troubles { failover: Some(WAITS), ..Troubles::default() },
        ..scenario("failover", 10, 2, 90, busy(clients)?)
    })
}

fn failover_async(size: Size) -> Result<Scenario, WindowError> {
    let lag = Duration::from_millis(300);
    Ok(Scenario {
        name: "failover_async".into(),
        says: "the same, with replicas 300 ms behind and answers that do not wait for them: what was lost is sold twice, and no more than that".into(),
        troubles: Troubles { failover: Some(Failover { lag, waits: false, ..WAITS }), ..Troubles::default() },
        ..failover(size)?
    })
}

/// On a network and machines that work.
pub(super) fn scenario(
    name: &str,
    nodes: u32,
    workers: u32,
    seconds: u64,
    populations: Vec<Population>,
) -> Scenario {
    Scenario {
        name: name.into(),
        size: Size::Full,
        says: String::new(),
        nodes,
        workers,
        lasts: Duration::from_secs(seconds),
        populations,
        shared: None,
        network: Network::GOOD,
        troubles: Troubles::default(),
        goals: None,
    }
}

fn phase(from_secs: u64, per_sec: f64) -> Phase {
    Phase { from: Duration::from_secs(from_secs), per_sec }
}

fn sliding(limit: u32, per: Duration) -> Result<Window, WindowError> {
    Window::new(limit, per, Algorithm::SlidingWindow)
}
