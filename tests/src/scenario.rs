//! What must happen behind any host: the same scenarios run on the fake one and in a real Envoy.
//!
//! That holds the fake host to the real one. Where the two could differ, a scenario would pass on one of them
//! alone; what only one of them can do (time, faults, many workers; sockets, bodies on the wire) has suites of
//! its own.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A header map: names in lower case, values in bytes.
pub type HeaderList = Vec<(String, Vec<u8>)>;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client that the policy trusts with the shadow lane's flag.
    Trusted,
    /// Anybody else.
    Untrusted,
}

/// The header by which a request asks the upstream for another status than 200.
pub const ANSWER: &str = "x-answer";

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The status of its answer.
    pub status: u16,
    /// The headers of its answer.
    pub answer: HeaderList,
    /// The body of its answer.
    pub body: String,
    /// The headers with which it reached the upstream, if it did.
    pub upstream: Option<HeaderList>,
}

/// A proxy with the plugin, a store and an upstream that answers 200, or with the status that [`ANSWER`] asks for.
pub trait Proxy {
    /// Sends a GET for `/` with these headers.
    fn send(&mut self, sender: Sender, headers: &[(&str, &[u8])]) -> Result<Seen>;
    /// Takes the store away.
    fn stop_store(&mut self) -> Result<()>;
    /// Brings the store back, and lets pass the time in which the plugin must notice.
    fn start_store(&mut self) -> Result<()>;
    /// How many requests a limit has decided so in a lane.
    fn decisions(&self, lane: &str, limit: &str, outcome: &str) -> Result<u64>;
    /// Returns when so many charges for answers that succeeded have ended so, for a limit in a lane; no request
    /// waits for them.
    fn charges(&self, lane: &str, limit: &str, outcome: &str, count: u64) -> Result<()>;
}

/// A scenario, to be run on a fresh proxy with the [`policy`].
pub type Scenario = fn(&mut dyn Proxy) -> Result<()>;

/// The policy of all scenarios. `trusted` is the network of [`Sender::Trusted`]. The store's timeout is far above
/// what a busy machine needs: no scenario waits for it.
pub fn policy(trusted: &str) -> Value {
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"baggage": "shadow", "values": ["true"]}, {"header": "x-shadow", "values": ["1"]}],
            "trust": [{"source_cidr": [trusted]}],
            "propagate": [{"baggage": "shadow", "value": "true"}],
        }},
        "store": {"cluster": "lanekeeper", "timeout": "10s", "circuit": {"slow": "10s", "failures": 1}},
        "rate_limits": {
            "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 3, "per": "1m"}]},
            "shadow_per_user": {"windows": [{"limit": 5, "per": "1m"}]},
            "per_shop": {
                "keys": {"shop": [{"header": "x-shop"}]},
                "windows": [{"limit": 2, "per": "1m"}, {"limit": 100, "per": "1h"}],
                "cost": {"header": "x-cost", "max": 2},
            },
            "per_device": {
                "keys": {"device": [{"header": "x-device"}]},
                "windows": [{"limit": 10_000, "per": "1m"}, {"limit": 100_000, "per": "1h"}],
            },
            "paid": {
                "keys": {"payer": [{"header": "x-payer"}]},
                "windows": [{"limit": 10, "per": "1m"}],
                "consume": "on_success",
            },
        },
    })
}

/// All scenarios, each under its name.
pub const SCENARIOS: [(&str, Scenario); 13] = [
    ("a limit counts down and then rejects", counts_down),
    ("lanes have counters of their own", lanes_are_apart),
    ("a lane without an entry has the normal values and its own state", falls_back_in_values),
    ("a trusted flag is written in its canonical form", propagates),
    ("an untrusted flag is stripped and the rest stays byte for byte", strips),
    ("bytes that are no text count as a subject and travel on", odd_bytes),
    ("an absurd cost is the dearest", absurd_costs),
    ("all keys of a request or none", all_or_nothing),
    ("the node counts while the store is away", survives_the_store),
    ("what was charged in advance is spent while the store is away", spends_a_lease),
    ("a refusal of the store holds on the whole node while the store is away", remembers_a_refusal),
    ("failures cost nothing, and ten successes fill a limit of ten", charges_for_successes),
    ("the node charges for successes while the store is away", charges_without_the_store),
];

fn counts_down(proxy: &mut dyn Proxy) -> Result<()> {
    for left in ["2", "1", "0"] {
        let seen = proxy.send(Sender::Trusted, &[("x-user", b"ann")])?;
        ensure!(seen.status == 200, "answered with {}", seen.status);
        ensure!(seen.remaining()? == left, "{} are left instead of {left}", seen.remaining()?);
        ensure!(seen.answer("ratelimit-policy")? == r#""per_user";q=3;w=60"#, "{seen:?}");
    }
    let seen = proxy.send(Sender::Trusted, &[("x-user", b"ann")])?;
    ensure!(seen.status == 429 && seen.upstream.is_none(), "{seen:?}");
    ensure!(seen.answer("content-type")? == "application/problem+json", "{seen:?}");
    ensure!(seen.answer("retry-after")?.parse::<u32>()? > 0, "{seen:?}");
    let problem: Value = serde_json::from_str(&seen.body)?;
    ensure!(problem.get("limit") == Some(&json!("per_user")), "{problem}");
    ensure!(proxy.decisions("normal", "per_user", "admitted")? == 3, "admissions are counted");
    ensure!(proxy.decisions("normal", "per_user", "rejected")? == 1, "rejections are counted");
    Ok(())
}

fn lanes_are_apart(proxy: &mut dyn Proxy) -> Result<()> {
    let shadow: &[(&str, &[u8])] = &[("x-user", b"ann"), ("baggage", b"shadow=true")];
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(proxy.send(Sender::Trusted, shadow)?.status);
    }
    ensure!(statuses == [200, 200, 200, 200, 200, 429], "the shadow lane answered {statuses:?}");
    let normal = proxy.send(Sender::Trusted, &[("x-user", b"ann")])?;
    ensure!(normal.status == 200 && normal.remaining()? == "2", "{normal:?}");
    ensure!(proxy.decisions("normal", "per_user", "rejected")? == 0, "the normal lane saw a rejection");
    Ok(())
}

fn falls_back_in_values(proxy: &mut dyn Proxy) -> Result<()> {
    let shadow: &[(&str, &[u8])] = &[("x-shop", b"s1"), ("x-shadow", b"1")];
    let first = proxy.send(Sender::Trusted, shadow)?;
    ensure!(first.answer("ratelimit")?.starts_with("\"shadow_per_shop:1m\";r=1"), "{first:?}");
    let second = proxy.send(Sender::Trusted, &[("x-shop", b"s1")])?;
    ensure!(second.answer("ratelimit")?.starts_with("\"per_shop:1m\";r=1"), "{second:?}");
    Ok(())
}

fn propagates(proxy: &mut dyn Proxy) -> Result<()> {
    let seen = proxy.send(Sender::Trusted, &[("x-shadow", b"1"), ("baggage", b"a=1 , b=%20;p")])?;
    ensure!(seen.upstream("baggage")? == [b"a=1 , b=%20;p,shadow=true"], "{seen:?}");
    let untouched = proxy.send(Sender::Trusted, &[("baggage", b"a=1,shadow=true")])?;
    ensure!(untouched.upstream("baggage")? == [b"a=1,shadow=true"], "{untouched:?}");
    Ok(())
}

fn strips(proxy: &mut dyn Proxy) -> Result<()> {
    let forged: &[(&str, &[u8])] = &[
        ("x-user", b"ann"),
        ("baggage", b"a=1 ;p , shadow=true,,b=\x80\xff"),
        ("baggage", b"shadow \t=\ttrue"),
        ("x-shadow", b"1"),
    ];
    let seen = proxy.send(Sender::Untrusted, forged)?;
    ensure!(seen.status == 200, "{seen:?}");
    ensure!(seen.upstream("baggage")? == [b"a=1 ;p ,,b=\x80\xff"], "{seen:?}");
    ensure!(seen.upstream("x-shadow")?.is_empty(), "{seen:?}");
    ensure!(proxy.decisions("normal", "per_user", "admitted")? == 1, "it counts as normal");
    Ok(())
}

fn odd_bytes(proxy: &mut dyn Proxy) -> Result<()> {
    let user: &[u8] = b"\xc3\x28\x80{}%";
    for _ in 0..3 {
        let seen = proxy.send(Sender::Trusted, &[("x-user", user)])?;
        ensure!(seen.status == 200 && seen.upstream("x-user")? == [user], "{seen:?}");
    }
    ensure!(proxy.send(Sender::Trusted, &[("x-user", user)])?.status == 429, "it is counted like any other");
    ensure!(
        proxy.send(Sender::Trusted, &[("x-user", b"\xc3\x28\x81{}%")])?.status == 200,
        "another byte, another user"
    );
    Ok(())
}

fn absurd_costs(proxy: &mut dyn Proxy) -> Result<()> {
    let absurd: [&[u8]; 4] = [b"-1", b"0", b"1e9", b"\xff"];
    for (shop, cost) in absurd.into_iter().enumerate() {
        let shop = shop.to_string();
        let seen = proxy.send(Sender::Trusted, &[("x-shop", shop.as_bytes()), ("x-cost", cost)])?;
        ensure!(seen.status == 200 && seen.remaining()? == "0", "a cost of {cost:?} left {seen:?}");
    }
    Ok(())
}

fn all_or_nothing(proxy: &mut dyn Proxy) -> Result<()> {
    let both: &[(&str, &[u8])] = &[("x-user", b"ann"), ("x-shop", b"s1")];
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(proxy.send(Sender::Trusted, both)?.status);
    }
    ensure!(statuses == [200, 200, 429, 429], "the shop's limit answered {statuses:?}");
    let alone = proxy.send(Sender::Trusted, &[("x-user", b"ann")])?;
    ensure!(alone.remaining()? == "0", "the two rejections cost the user nothing, yet: {alone:?}");
    Ok(())
}

fn survives_the_store(proxy: &mut dyn Proxy) -> Result<()> {
    let ann: &[(&str, &[u8])] = &[("x-user", b"ann")];
    ensure!(proxy.send(Sender::Trusted, ann)?.answer("x-lanekeeper-fallback").is_err(), "the store decides");
    proxy.stop_store()?;
    // it goes on from what the store said last, whichever worker has heard that
    for left in ["1", "0"] {
        let seen = proxy.send(Sender::Trusted, ann)?;
        ensure!(seen.answer("x-lanekeeper-fallback")? == "local", "{seen:?}");
        ensure!(seen.status == 200 && seen.remaining()? == left, "{seen:?}");
    }
    let rejected = proxy.send(Sender::Trusted, ann)?;
    ensure!(rejected.status == 429 && rejected.answer("x-lanekeeper-fallback")? == "local", "{rejected:?}");
    proxy.start_store()?;
    let back = proxy.send(Sender::Trusted, &[("x-user", b"zoe")])?;
    ensure!(back.status == 200 && back.answer("x-lanekeeper-fallback").is_err(), "{back:?}");
    Ok(())
}

fn spends_a_lease(proxy: &mut dyn Proxy) -> Result<()> {
    let device: &[(&str, &[u8])] = &[("x-device", b"d1")];
    let asked = proxy.send(Sender::Trusted, device)?;
    ensure!(asked.status == 200 && asked.remaining()? == "9999", "{asked:?}");
    proxy.stop_store()?;
    // whichever worker it meets
    let leased = proxy.send(Sender::Trusted, device)?;
    ensure!(leased.answer("x-lanekeeper-fallback").is_err(), "the store has charged for it: {leased:?}");
    ensure!(leased.status == 200 && leased.remaining()? == "9998", "{leased:?}");
    let unknown = proxy.send(Sender::Trusted, &[("x-device", b"d2")])?;
    ensure!(unknown.answer("x-lanekeeper-fallback")? == "local", "{unknown:?}");
    ensure!(proxy.decisions("normal", "per_device", "admitted")? == 3, "each is counted");
    Ok(())
}

fn remembers_a_refusal(proxy: &mut dyn Proxy) -> Result<()> {
    let shop: &[(&str, &[u8])] = &[("x-shop", b"s1")];
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(proxy.send(Sender::Trusted, shop)?.status);
    }
    ensure!(statuses == [200, 200, 429], "the store answered {statuses:?}");
    proxy.stop_store()?;
    for _ in 0..4 {
        let rejected = proxy.send(Sender::Trusted, shop)?;
        ensure!(rejected.status == 429, "{rejected:?}");
        ensure!(rejected.answer("x-lanekeeper-fallback").is_err(), "the store has said so: {rejected:?}");
    }
    Ok(())
}

fn charges_for_successes(proxy: &mut dyn Proxy) -> Result<()> {
    for status in ["500", "404"].into_iter().cycle().take(10) {
        let seen = proxy.send(Sender::Trusted, &[("x-payer", b"ann"), (ANSWER, status.as_bytes())])?;
        ensure!(seen.status.to_string() == status && seen.remaining()? == "10", "{seen:?}");
    }
    fill_by_successes(proxy)?;
    let failing = proxy.send(Sender::Trusted, &[("x-payer", b"ann"), (ANSWER, b"500")])?;
    ensure!(failing.status == 429, "a full limit lets nobody try: {failing:?}");
    let shadow = proxy.send(Sender::Trusted, &[("x-payer", b"ann"), ("x-shadow", b"1")])?;
    ensure!(shadow.status == 200 && shadow.remaining()? == "10", "{shadow:?}");
    proxy.charges("shadow", "shadow_paid", "charged", 1)
}

fn charges_without_the_store(proxy: &mut dyn Proxy) -> Result<()> {
    proxy.stop_store()?;
    let failing = proxy.send(Sender::Trusted, &[("x-payer", b"ann"), (ANSWER, b"500")])?;
    ensure!(failing.answer("x-lanekeeper-fallback")? == "local", "{failing:?}");
    fill_by_successes(proxy)
}

/// Ten requests of `ann` succeed, and the next is turned away.
fn fill_by_successes(proxy: &mut dyn Proxy) -> Result<()> {
    let ann: &[(&str, &[u8])] = &[("x-payer", b"ann")];
    for charged in 0..10 {
        proxy.charges("normal", "paid", "charged", charged)?;
        let seen = proxy.send(Sender::Trusted, ann)?;
        let left = (10 - charged).to_string();
        ensure!(seen.status == 200 && seen.remaining()? == left, "{left} should be left: {seen:?}");
    }
    proxy.charges("normal", "paid", "charged", 10)?;
    let rejected = proxy.send(Sender::Trusted, ann)?;
    ensure!(rejected.status == 429 && rejected.upstream.is_none(), "{rejected:?}");
    proxy.charges("normal", "paid", "charged", 10)
}

impl Seen {
    /// A header of the answer.
    pub fn answer(&self, name: &str) -> Result<&str> {
        let (_, value) =
            self.answer.iter().find(|(n, _)| n == name).with_context(|| format!("no {name}: {self:?}"))?;
        Ok(std::str::from_utf8(value)?)
    }

    /// What is left by the answer's `RateLimit`.
    fn remaining(&self) -> Result<&str> {
        let parameters = self.answer("ratelimit")?.split(';');
        parameters
            .into_iter()
            .find_map(|parameter| parameter.strip_prefix("r="))
            .context("RateLimit has no r")
    }

    /// The lines of a header as the upstream got them.
    fn upstream(&self, name: &str) -> Result<Vec<&[u8]>> {
        let headers =
            self.upstream.as_ref().with_context(|| format!("it did not reach the upstream: {self:?}"))?;
        Ok(headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_slice()).collect())
    }
}
