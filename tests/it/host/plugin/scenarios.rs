//! The scenarios that a real Envoy runs too.

use std::time::Duration;

use anyhow::{Result, ensure};
use lanekeeper_tests::host::{Host, Request, State};
use lanekeeper_tests::scenario::{ANSWER, HeaderList, Proxy, SCENARIOS, Seen, Sender, policy};

use super::{FALLBACK, Store, behaved, charges, decisions};

struct Fake {
    host: Host,
    store: Store,
    sent: usize,
}

impl Fake {
    fn start() -> Self {
        let host = Host::start(&policy("10.0.0.0/8").to_string(), 2).unwrap();
        let store = Store::new();
        store.serve(&host);
        Self { host, store, sent: 0 }
    }
}

fn list<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> HeaderList {
    headers.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec())).collect()
}

impl Proxy for Fake {
    fn send(&mut self, sender: Sender, headers: &[(&str, &[u8])]) -> Result<Seen> {
        let address = match sender {
            Sender::Trusted => "10.0.0.1:4000",
            Sender::Untrusted => "[2001:db8::9]:4000",
        };
        let mut request = Request::get("/").property(&["source", "address"], address);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // the two workers take turns
        self.sent += 1;
        let stream = self.host.worker(self.sent % 2).request(request);
        let seen = match stream.state() {
            State::Continued => {
                let upstream = stream.upstream().headers.unwrap();
                let status = upstream.text(ANSWER).unwrap_or_else(|| "200".to_owned());
                Seen {
                    status: status.parse()?,
                    answer: list(stream.respond([(":status", status)]).unwrap().iter()),
                    body: String::new(),
                    upstream: Some(list(upstream.iter())),
                }
            }
            State::Replied(reply) => Seen {
                status: u16::try_from(reply.status)?,
                answer: list(reply.headers.iter()),
                body: String::from_utf8(reply.body.to_vec())?,
                upstream: None,
            },
            other => panic!("undecided: {other:?}"),
        };
        stream.end();
        Ok(seen)
    }

    fn stop_store(&mut self) -> Result<()> {
        self.store.away.set(true);
        Ok(())
    }

    fn start_store(&mut self) -> Result<()> {
        self.store.away.set(false);
        self.host.advance(Duration::from_secs(1));
        // each worker has its own circuit, and one request of each is its probe
        for user in [b"probe-1", b"probe-2"] {
            self.send(Sender::Trusted, &[("x-user", user)])?;
        }
        Ok(())
    }

    fn decisions(&self, lane: &str, limit: &str, outcome: &str) -> Result<u64> {
        let sources = ["store", "remembered", "lease", "policy", FALLBACK];
        Ok(sources.into_iter().map(|source| decisions(&self.host, lane, limit, outcome, source)).sum())
    }

    fn charges(&self, lane: &str, limit: &str, outcome: &str, count: u64) -> Result<()> {
        let sources = ["store", FALLBACK].into_iter();
        let ended: u64 = sources.map(|source| charges(&self.host, lane, limit, outcome, source)).sum();
        ensure!(ended == count, "{ended} charges instead of {count}");
        Ok(())
    }
}

#[test]
fn every_scenario_holds_on_the_fake_host() {
    for (name, scenario) in SCENARIOS {
        let mut fake = Fake::start();
        scenario(&mut fake).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        behaved(&fake.host);
    }
}
