//! The steps of the demo. Each sends real requests, checks the answers, and returns what it saw.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Shown, Stage, policy};
use crate::client::{Answer, Client, TRUSTED, UNTRUSTED};
use crate::envoy::{Setup, Verdict};
use crate::wait;

/// What the policy allows a user in a minute.
const NORMAL_LIMIT: u64 = 10;
const SHADOW_LIMIT: usize = 50;
const FLOOD: usize = 2_000;
// more only wait for each other on a small machine
const FLOODERS: usize = 4;
/// Failures after which each worker leaves the store alone for a while: ten each, spread by chance.
const GIVES_UP: usize = 60;
/// New connections in a row after which each worker has had one.
const ALL_WORKERS_MET: usize = 20;
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// A user gets ten answers, then 429 with everything a client needs to know.
pub fn a_user_is_limited(stage: &mut Stage) -> Result<Shown> {
    let client = Client::from(TRUSTED)?;
    let left = spend(stage, &client, "alice")?;
    let rejected = stage.get(&client, "alice")?;
    ensure!(rejected.status == 429, "request 11 was answered with {}", rejected.status);
    let retry_after: u64 = rejected.header("retry-after").context("the 429 has no Retry-After")?.parse()?;
    // a token comes back when the last request of its bucket, 1/256 of the window, has left the window
    ensure!((1..=61).contains(&retry_after), "Retry-After is {retry_after}");
    let problem: Value = serde_json::from_str(&rejected.body).context("the body of the 429 is no JSON")?;
    let named = problem.get("limit").and_then(Value::as_str);
    ensure!(named == Some("per_user"), "the body names the limit {named:?}");
    Ok(Shown { figures: format!("10 × 200, remaining {left}, then 429:"), below: written_out(&rejected) })
}

/// Thousands of flagged requests for a user leave the normal lane as it was, for that user and for others.
pub fn a_flood_stays_in_its_lane(stage: &mut Stage) -> Result<Shown> {
    let client = Client::from(TRUSTED)?;
    while stage.get(&client, "alice")?.status == 200 {}
    let rejections = |lane, limit| stage.envoy.admin().decisions(lane, limit, "rejected");
    let normal_before = rejections("normal", "per_user")?;
    let shadow_before = rejections("shadow", "shadow_per_user")?;

    let start = Instant::now();
    let (admitted, bob) = flood(stage, &client)?;
    let took = start.elapsed();

    let rejected = FLOOD - admitted;
    ensure!(admitted > 0 && admitted <= SHADOW_LIMIT, "{admitted} shadow requests were admitted");
    ensure!(
        rejections("shadow", "shadow_per_user")? - shadow_before == rejected as u64,
        "Envoy counted other rejections"
    );
    let from_flood = rejections("normal", "per_user")? - normal_before;
    ensure!(from_flood == 0, "the flood led to {from_flood} rejections in the normal lane");
    let left = falling(&bob)?;
    let alice = stage.get(&client, "alice")?;
    ensure!(alice.status == 429, "alice was answered with {} after the flood", alice.status);
    Ok(Shown {
        figures: format!(
            "{FLOOD} sent for alice in {:.1} s: {admitted} × 200, {rejected} × 429",
            took.as_secs_f64()
        ),
        below: vec![
            format!("bob meanwhile, normal lane: {NORMAL_LIMIT} × 200, remaining {left}"),
            "rejections in the normal lane: 0; alice, normal lane: still 429".to_owned(),
        ],
    })
}

/// A flag from a client that may not set it is taken off, and the request counts as normal.
pub fn a_forged_flag_counts_as_normal(stage: &mut Stage) -> Result<Shown> {
    const SENT: &[u8] = b"tenant=blue;level=2,shadow=true,trace.id=%7B7%7D";
    const PASSED: &str = "tenant=blue;level=2,trace.id=%7B7%7D";
    let admin = stage.envoy.admin();
    let stripped = || admin.metric("lanekeeper_untrusted_flags_total", &[("lane", "shadow")]);
    let counted = || admin.decisions("normal", "per_user", "admitted");
    let (stripped_before, counted_before) = (stripped()?, counted()?);

    let headers: [(&str, &[u8]); 2] = [("x-user", b"mallory"), ("baggage", SENT)];
    let answer = Client::from(UNTRUSTED)?.get(&stage.envoy.url("/forged"), &headers)?;

    ensure!(answer.status == 200, "answered with {}", answer.status);
    ensure!(answer.limit() == Some("per_user"), "counted under {:?}", answer.limit());
    ensure!(counted()? - counted_before == 1, "Envoy did not count it in the normal lane");
    ensure!(stripped()? - stripped_before == 1, "Envoy did not count the untrusted flag");
    let seen = stage.upstream.seen().into_iter().find(|seen| seen.path == "/forged");
    let baggage = seen.context("it did not reach the service")?.header("baggage").join(",");
    ensure!(baggage == PASSED, "the service saw baggage: {baggage}");
    Ok(Shown {
        figures: format!(
            "stripped, and counted in the normal lane (remaining {})",
            answer.remaining().unwrap_or(0)
        ),
        below: vec![format!("the service saw  baggage: {baggage}")],
    })
}

/// Without the store each request still has an answer, by the node's own counters, and the answer says so.
pub fn the_node_counts_without_the_store(stage: &mut Stage) -> Result<Shown> {
    stage.shim.kill();
    let client = Client::from(TRUSTED)?;
    let mut admitted = 0;
    let mut slowest = Duration::ZERO;
    for request in 1..=NORMAL_LIMIT + 2 {
        let start = Instant::now();
        let answer = stage.get(&client, "carol")?;
        slowest = slowest.max(start.elapsed());
        ensure!(matches!(answer.status, 200 | 429), "request {request} was answered with {}", answer.status);
        ensure!(
            answer.fallback() == Some("local"),
            "request {request} says fallback {:?}",
            answer.fallback()
        );
        admitted += u64::from(answer.status == 200);
    }
    ensure!(admitted == NORMAL_LIMIT, "the node admitted {admitted} of {}", NORMAL_LIMIT + 2);
    let rejected = NORMAL_LIMIT + 2 - admitted;
    Ok(Shown {
        figures: format!("carol: {admitted} × 200, {rejected} × 429, slowest {} ms", slowest.as_millis()),
        below: vec!["each answer says  x-lanekeeper-fallback: local".to_owned()],
    })
}

/// The store that comes back decides again by itself, also for workers that had given it up.
pub fn the_store_decides_again(stage: &mut Stage) -> Result<Shown> {
    stage.shim.kill();
    // new connections, so that all workers are met; a new user each time, of whom no worker knows anything
    let client = Client::unkept(TRUSTED)?;
    let mut asked = 0;
    let mut by_store = |stage: &Stage| -> Result<bool> {
        asked += 1;
        let answer = stage.get(&client, &format!("dave-{asked}"))?;
        ensure!(answer.status == 200, "answered with {}", answer.status);
        Ok(answer.fallback().is_none())
    };
    for _ in 0..GIVES_UP {
        ensure!(!by_store(stage)?, "an answer without the store does not say so");
    }

    stage.shim.start_again()?;
    let start = Instant::now();
    let mut back_after = None;
    let mut in_a_row = 0;
    let took = wait::until("the store to decide for all workers", || {
        in_a_row = if by_store(stage)? { in_a_row + 1 } else { 0 };
        if in_a_row == 1 {
            back_after = Some(start.elapsed());
        }
        Ok(back_after.filter(|_| in_a_row == ALL_WORKERS_MET))
    })?;
    ensure!(took <= BACK_WITHIN, "that took {} ms", took.as_millis());
    Ok(Shown {
        figures: format!("the store decides again for all workers after {} ms", took.as_millis()),
        below: Vec::new(),
    })
}

/// A policy with an error is refused with its name, before the start and while running, and the old one goes on.
pub fn a_typo_is_refused(stage: &mut Stage) -> Result<Shown> {
    const MISTYPED: &str = "rate_limits.per_user.window";
    let mut policy = policy()?;
    let limit = policy.pointer_mut("/rate_limits/per_user").and_then(Value::as_object_mut);
    let limit = limit.context("the demo's policy has no per_user")?;
    let windows = limit.remove("windows").context("per_user has no windows")?;
    limit.insert("window".to_owned(), windows);

    let at_start =
        Setup::new(stage.upstream.address()).store(stage.shim.address()).policy(policy.clone()).validate()?;
    let message = refusal(at_start, MISTYPED).context("envoy --mode validate")?;
    refusal(stage.envoy.update_policy(&policy)?, MISTYPED).context("the update of the listener")?;

    let answer = stage.get(&Client::unkept(TRUSTED)?, "erin")?;
    let item = answer.header("ratelimit-policy").unwrap_or_default();
    ensure!(item == r#""per_user";q=10;w=60"#, "after the refusal the policy is {item}");
    Ok(Shown {
        figures: "refused at the start and while running; the old policy goes on".to_owned(),
        below: vec![message],
    })
}

impl Stage {
    fn get(&self, client: &Client, user: &str) -> Result<Answer> {
        client.get(&self.envoy.url("/"), &[("x-user", user.as_bytes())])
    }
}

/// Sends what a user may send, and tells what was left after each.
fn spend(stage: &Stage, client: &Client, user: &str) -> Result<String> {
    let answers = (0..NORMAL_LIMIT).map(|_| stage.get(client, user));
    falling(&answers.collect::<Result<Vec<_>>>()?)
}

/// The remaining of these answers as text; they must be all that a user may have, down to 0.
fn falling(answers: &[Answer]) -> Result<String> {
    ensure!(answers.len() as u64 == NORMAL_LIMIT, "{} answers", answers.len());
    for (answer, left) in answers.iter().zip((0..NORMAL_LIMIT).rev()) {
        ensure!(answer.status == 200, "answered with {} where {left} should be left", answer.status);
        ensure!(answer.limit() == Some("per_user"), "counted under {:?}", answer.limit());
        ensure!(answer.remaining() == Some(left), "{:?} left where it should be {left}", answer.remaining());
    }
    Ok((0..NORMAL_LIMIT).rev().map(|left| left.to_string()).collect::<Vec<_>>().join(" "))
}

/// Sends the flood for alice, with a request of bob's after each tenth of it. How many were admitted, and bob's answers.
fn flood(stage: &Stage, bob: &Client) -> Result<(usize, Vec<Answer>)> {
    let every = FLOOD / NORMAL_LIMIT as usize;
    let (sent, done, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let bobs = Mutex::new(Vec::new());
    let drive = || -> Result<()> {
        let client = Client::from(TRUSTED)?;
        while sent.fetch_add(1, Ordering::Relaxed) < FLOOD {
            let headers: [(&str, &[u8]); 2] = [("x-user", b"alice"), ("baggage", b"shadow=true")];
            let answer = client.get(&stage.envoy.url("/"), &headers)?;
            match answer.status {
                200 => _ = admitted.fetch_add(1, Ordering::Relaxed),
                429 => {}
                other => bail!("a shadow request was answered with {other}"),
            }
            ensure!(answer.limit() == Some("shadow_per_user"), "counted under {:?}", answer.limit());
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            (stage.progress)(done, FLOOD);
            if done.is_multiple_of(every) {
                let mut bobs = bobs.lock().unwrap_or_else(PoisonError::into_inner);
                bobs.push(stage.get(bob, "bob")?);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let drivers: Vec<_> = (0..FLOODERS).map(|_| scope.spawn(drive)).collect();
        drivers.into_iter().try_for_each(|driver| match driver.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("a sender of the flood panicked"),
        })
    })?;
    Ok((admitted.into_inner(), bobs.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// The line of the refusal that names the mistake.
fn refusal(verdict: Verdict, mistake: &str) -> Result<String> {
    let Verdict::Refused(said) = verdict else { bail!("accepted a policy with a typo") };
    let line = said.lines().find_map(|line| line.get(line.find(mistake)?..));
    line.map(str::to_owned).with_context(|| format!("the refusal does not name {mistake}:\n{said}"))
}

fn written_out(answer: &Answer) -> Vec<String> {
    const ENVOYS_OWN: [&str; 3] = ["date", "server", "content-length"];
    let headers = answer.headers.iter().filter(|(name, _)| !ENVOYS_OWN.contains(&name.as_str()));
    let headers =
        headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    headers.chain(std::iter::once(answer.body.clone())).collect()
}
