//! The scenarios that the fake host runs too.

use anyhow::{Result, ensure};
use lanekeeper_tests::client::{Client, TRUSTED, UNTRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::scenario::{self, Proxy, SCENARIOS, Seen, Sender};
use lanekeeper_tests::shim_process::ShimProcess;
use lanekeeper_tests::upstream::Upstream;
use lanekeeper_tests::wait;

struct Real {
    envoy: Envoy,
    upstream: Upstream,
    shim: ShimProcess,
    trusted: Client,
    untrusted: Client,
}

impl Real {
    fn start(store: &str) -> Result<Self> {
        let (upstream, shim) = (Upstream::start()?, ShimProcess::start(store)?);
        let policy = scenario::policy("127.0.0.1/32");
        let envoy = Setup::new(upstream.address()).store(shim.address()).policy(policy).start()?;
        let (trusted, untrusted) = (Client::unkept(TRUSTED)?, Client::unkept(UNTRUSTED)?);
        Ok(Self { envoy, upstream, shim, trusted, untrusted })
    }
}

impl Proxy for Real {
    fn send(&mut self, sender: Sender, headers: &[(&str, &[u8])]) -> Result<Seen> {
        let client = match sender {
            Sender::Trusted => &self.trusted,
            Sender::Untrusted => &self.untrusted,
        };
        let before = self.upstream.seen().len();
        let answer = client.get(&self.envoy.url("/"), headers)?;
        let list = answer.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        // the upstream keeps values as latin-1, one character for each byte
        let bytes = |text: &str| text.chars().filter_map(|c| u8::try_from(c).ok()).collect();
        let upstream = self
            .upstream
            .seen()
            .get(before)
            .map(|seen| seen.headers.iter().map(|(name, value)| (name.clone(), bytes(value))).collect());
        Ok(Seen { status: answer.status, answer: list.collect(), body: answer.body, upstream })
    }

    fn stop_store(&mut self) -> Result<()> {
        self.shim.kill();
        Ok(())
    }

    fn start_store(&mut self) -> Result<()> {
        self.shim.start_again()?;
        // with requests of which no worker knows anything: first one probes, then more and more of them ask
        let (mut in_a_row, mut asked) = (0, 0);
        wait::until("the store to decide again", || {
            asked += 1;
            let user = format!("probe-{asked}");
            let answer = self.trusted.get(&self.envoy.url("/"), &[("x-user", user.as_bytes())])?;
            let by_store = answer.fallback().is_none();
            in_a_row = if by_store { in_a_row + 1 } else { 0 };
            Ok((in_a_row >= 20).then_some(()))
        })
    }

    fn decisions(&self, lane: &str, limit: &str, outcome: &str) -> Result<u64> {
        self.envoy.admin().decisions(lane, limit, outcome)
    }

    fn charges(&self, lane: &str, limit: &str, outcome: &str, count: u64) -> Result<()> {
        let labels = [("lane", lane), ("limit", limit), ("outcome", outcome)];
        wait::until("the charges", || {
            let ended = self.envoy.admin().metric("lanekeeper_charges_total", &labels)?;
            ensure!(ended <= count, "{ended} charges instead of {count}");
            Ok((ended == count).then_some(()))
        })
    }
}

#[test]
fn every_scenario_holds_in_a_real_envoy_over_the_embedded_store() {
    for (name, scenario) in SCENARIOS {
        let mut real = Real::start("memory").unwrap();
        scenario(&mut real).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn every_scenario_holds_in_a_real_envoy_over_redis() {
    for (name, scenario) in SCENARIOS {
        let redis = Redis::start().unwrap();
        let mut real = Real::start(&redis.url()).unwrap();
        scenario(&mut real).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}
