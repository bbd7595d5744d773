//! What Redis gives when nothing stands in front of it: `redis-benchmark` with the shim's own command.
//!
//! The command is overheard from the shim (`MONITOR`) and not written down here, so that it is always the same.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lanekeeper_tests::redis::Redis;

use super::question::{MOST_CHECKS, SUBJECT, digits_of};
use crate::cores::on_core;

/// The program to run, if not the one on the path.
const BENCHMARK_ENV: &str = "LANEKEEPER_REDIS_BENCHMARK";
/// As many connections as the shim has callouts under way.
const CLIENTS: &str = "4";
/// `redis-benchmark` takes a number of commands and no time: about what a core of today runs of this script.
const ABOUT_PER_SEC: f64 = 30_000.0;

pub(super) struct Ceiling {
    socket: String,
    command: Vec<String>,
}

impl Ceiling {
    /// The command that `ask` makes the shim send for subject 0.
    pub(super) fn overhear(redis: &Redis, ask: impl FnOnce() -> Result<()>) -> Result<Self> {
        let url = redis.url();
        let socket = url.strip_prefix("redis+unix://").context("redis has no socket")?.to_owned();
        let mut monitor = UnixStream::connect(&socket)?;
        monitor.set_read_timeout(Some(Duration::from_secs(10)))?;
        monitor.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(monitor).lines();
        ensure!(lines.next().transpose()?.is_some_and(|line| line == "+OK"), "redis lets nobody listen");
        ask()?;
        for line in lines {
            if let Some(command) = words(&line?).filter(|words| words.first().is_some_and(|w| w == "EVALSHA"))
            {
                let subject = digits_of(0);
                let command = command.iter().map(|word| word.replace(&subject, SUBJECT)).collect();
                return Ok(Self { socket, command });
            }
        }
        bail!("the shim sent no script")
    }

    /// Decisions a second over so many subjects, asked for from this core.
    pub(super) fn per_sec(&self, core: usize, subjects: u64, lasts: Duration) -> Result<f64> {
        let commands = (lasts.as_secs_f64() * ABOUT_PER_SEC) as u64;
        let program = env::var_os(BENCHMARK_ENV).unwrap_or_else(|| OsString::from("redis-benchmark"));
        let mut benchmark = Command::new(program);
        benchmark
            .args(["-s", &self.socket, "-c", CLIENTS, "-P", &MOST_CHECKS.to_string(), "--csv"])
            .args(["-n", &commands.to_string(), "-r", &subjects.to_string()])
            .args(&self.command);
        let output = on_core(core, || benchmark.output().context("no redis-benchmark"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "redis-benchmark failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        rate(&text).with_context(|| format!("redis-benchmark gave no rate: {text}"))
    }
}

/// The words of a line of `MONITOR`; none when a script ran it. No word of the shim's has a quote in it.
fn words(line: &str) -> Option<Vec<String>> {
    let (from, command) = line.split_once("] ")?;
    let words = command.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    (!from.ends_with(" lua")).then_some(words)
}

/// The second column of the last line.
fn rate(csv: &str) -> Option<f64> {
    csv.lines().last()?.split("\",\"").nth(1)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_client_sent_and_not_what_a_script_ran() {
        let line = r#"+1790000000.000001 [0 unix:/run/redis.sock] "EVALSHA" "c3" "1" "per_user:{0}""#;
        assert_eq!(words(line).unwrap(), ["EVALSHA", "c3", "1", "per_user:{0}"]);
        assert_eq!(words(r#"+1790000000.000001 [0 lua] "TIME""#), None);
    }

    #[test]
    fn reads_the_rate_of_a_benchmark() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"EVALSHA c3 1 per_user:{__rand_int__}\",\"32876.23\",\"7.714\"\n";
        assert_eq!(rate(csv), Some(32_876.23));
        assert_eq!(rate("ERR unknown command"), None);
    }
}
