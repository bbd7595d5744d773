//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::app::App;
use crate::connections::MAX_CONNECTIONS;
use crate::listen::{Address, DRAIN, Manner};
use crate::memory::{MAX_SUBJECTS, MemoryStore};
use crate::policy::{PolicyFile, PolicyFileError};
use crate::redis::{AddressError, CLOCK_WARNING, Options, RedisStore, TlsFiles};
use crate::shed::MAX_REQUESTS;

/// The small service between the Lanekeeper filter and the store that counts.
///
/// Envoy cannot speak to Redis from a filter, so the filter asks this service over HTTP, in batches, and this
/// service asks Redis. It keeps nothing itself: run as many as you like in front of one Redis.
#[derive(Debug, Parser)]
#[command(version, about, long_about, after_help = EXAMPLES)]
pub struct Args {
    /// Where to listen for HTTP/1.1 and HTTP/2: IP:PORT (port 0: any free one), unix:/PATH, or `systemd`
    ///
    /// `systemd` is the first socket that it passes (LISTEN_FDS). It keeps it while no shim runs: connections wait, and
    /// none is refused.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    pub listen: Address,

    /// Listens beside another shim of the same user that has this address, if there is one, and only once the store
    /// answers; stop the other one (SIGTERM) when this one says `listening on`
    ///
    /// Without it an address that is taken is an error. With `memory` the new one counts from zero.
    #[arg(long)]
    pub take_over: bool,

    /// How long a stop (SIGTERM, SIGINT) lets connections end by themselves
    ///
    /// It accepts none any more, /readyz says 503, and each answer asks its caller to close the connection (HTTP/1.1). When
    /// all are gone, or after this time, idle ones are closed, and requests in flight have 10 s to be answered.
    #[arg(long, value_name = "DURATION", default_value_t = DRAIN.into())]
    pub drain: humantime::Duration,

    /// Where to count: `memory` (in this process, gone when it ends) or Redis
    ///
    ///   redis://[USER:PASSWORD@]HOST[:PORT][/DB]                     one server
    ///   redis-cluster://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]        a cluster, and some of its nodes
    ///   redis-sentinel://[USER:PASSWORD@]HOST[:PORT][,...]/NAME[/DB] the master that Sentinel knows by this name
    ///
    /// With TLS it is rediss://, rediss-cluster:// or rediss-sentinel://. In the environment a password is not seen in
    /// the list of processes.
    #[arg(
        long,
        value_name = "STORE",
        verbatim_doc_comment,
        env = "LANEKEEPER_STORE",
        hide_env_values = true
    )]
    pub store: String,

    /// The PEM file of the CA that signed the certificate of Redis; without it, those that the system trusts count
    #[arg(long, value_name = "FILE")]
    pub store_ca: Option<PathBuf>,

    /// The PEM file of the certificate to show to Redis, where it asks for one (`tls-auth-clients yes`, its default)
    #[arg(long, value_name = "FILE", requires = "store_key")]
    pub store_cert: Option<PathBuf>,

    /// The PEM file of that certificate's private key. All three files are read once, at the start
    #[arg(long, value_name = "FILE", requires = "store_cert")]
    pub store_key: Option<PathBuf>,

    /// How many subjects `memory` holds at most; beyond it new ones are refused (`full`), and those already counted go on
    ///
    /// Redis has a limit of its own: set `maxmemory`, and `maxmemory-policy noeviction`. Past 80 % of it the shim refuses
    /// new subjects in the same way, until less than 75 % are used.
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_SUBJECTS)]
    pub max_subjects: NonZeroUsize,

    /// The environment variable that holds the bearer token the filter has to show
    #[arg(long, value_name = "NAME")]
    pub token_env: Option<String>,

    /// The environment variable that holds the bearer token to show for what only operators may do: `reset`
    #[arg(long, value_name = "NAME")]
    pub admin_token_env: Option<String>,

    /// A policy in YAML or JSON, read again when it changes: its limits are then served by their names, for
    /// services that are no Envoy
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// How long Redis may take for a batch; keep it below the filter's own `store.timeout`
    #[arg(long, value_name = "DURATION", default_value = "15ms", value_parser = humantime::parse_duration)]
    pub store_timeout: Duration,

    /// How many requests may be under way at once; beyond it they are refused at once (503, `retry-after`), before
    /// their bodies are read
    ///
    /// An Envoy has two for each of its workers at most. /healthz, /readyz and /metrics are always answered, and
    /// lanekeeper_shim_requests_shed_total counts who was refused.
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_REQUESTS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: u32,

    /// How many connections may be open at once; beyond it they wait to be accepted
    ///
    /// Each is an open file: give the process more than 1024 of them (LimitNOFILE, ulimit -n) before you raise this.
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// How many replicas must have a decision before it is answered; with fewer it fails (`refused`, code NOREPLICAS)
    ///
    /// Redis replicates after it has answered, so that a failover can lose the last charges, and sell those tokens
    /// twice. With 1 here, and one replica to fail over to, it loses nothing that anybody was told. Each batch then takes
    /// a way to the replica longer, and the batches of one connection wait for each other.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub wait_replicas: u32,

    /// How long a server that took over by a failover decides nothing: its checks fail (`refused`, code LEARNING), and
    /// nodes count for themselves (`on_failure`)
    ///
    /// For a master that Sentinel or a cluster puts in another one's place, as soon as this shim notices it. It buys that
    /// charges which the failover lost are over before anybody is admitted again, in every window that is no longer
    /// than this, and leases that were lost with them, which last two minutes at most; and that an old master which was
    /// only cut off does not admit beside the new one, if this is no shorter than it takes to notice
    /// (cluster-node-timeout). It costs that nodes hold their clients to their share of the limit for so long. Longer
    /// windows can be exceeded by what was lost: --wait-replicas 1 loses nothing that was answered.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub learning_period: Duration,

    /// From which difference between the clock of Redis and this machine's on to warn; no decision depends on it
    ///
    /// Redis decides by its own clock, so no other one matters, until a server with a wrong clock takes over: ahead, it
    /// lets the windows of known subjects pass early; behind, it holds their time still until it has caught up. The
    /// metric lanekeeper_shim_redis_clock_offset_seconds has the differences, those of replicas too.
    #[arg(long, value_name = "DURATION", default_value_t = CLOCK_WARNING.into())]
    pub clock_warning: humantime::Duration,
}

const EXAMPLES: &str = "\
Examples:
  Try it, without Redis:
    lanekeeper-shim --store memory
  With Redis, beside Envoy in one pod:
    lanekeeper-shim --listen unix:/run/lanekeeper/shim.sock --store redis://redis:6379/0
  Instead of another one, with no question lost:
    lanekeeper-shim --take-over & ... && kill -TERM $OLD
  With a Redis that asks for certificates, as a user of its own:
    LANEKEEPER_STORE=rediss://lanekeeper:PASSWORD@redis:6379/0 lanekeeper-shim \\
      --store-ca ca.pem --store-cert shim.pem --store-key shim-key.pem
  With Redis Cluster, found from any of these nodes:
    lanekeeper-shim --store redis-cluster://10.0.0.1:6379,10.0.0.2:6379
  With the master that Sentinel knows as `counters`:
    lanekeeper-shim --store redis-sentinel://10.0.0.1:26379,10.0.0.2:26379/counters
  Ask for one request out of ten a minute:
    curl http://127.0.0.1:7400/v1/decide -d '{\"version\": 1, \"spend_within_ms\": 20, \"checks\": [{\"keys\": [
      {\"key\": \"demo:{u42}\", \"cost\": 1, \"windows\": [
        {\"algorithm\": \"sliding_window\", \"limit\": 10, \"per_ms\": 60000}]}]}]}'
  Ask for a limit of the policy by its name, as a service that is no Envoy:
    lanekeeper-shim --store memory --policy policy.yaml
    curl http://127.0.0.1:7400/v1/limits/per_user/allow -d '{\"subjects\": {\"user\": \"u42\"}}'
  Forget what a user has used, as an operator:
    ADMIN=PASSWORD lanekeeper-shim --store memory --policy policy.yaml --admin-token-env ADMIN
    curl http://127.0.0.1:7400/v1/limits/per_user/reset -H 'authorization: Bearer PASSWORD' \\
      -d '{\"subjects\": {\"user\": \"u42\"}}'

All that its Redis user needs; +select only for another database than 0:
  ACL SETUSER lanekeeper on >PASSWORD ~* \\
    +ping +select +evalsha +script|load +info +time +hmget +hget +hset +hdel +pexpireat +unlink +zadd +zremrangebyscore +zcard +pexpire
In a cluster, on every node, also +cluster|slots +asking; with Sentinel also +role, which also
leads to the clocks of replicas; with --wait-replicas also +wait.

It also serves /healthz (the process lives), /readyz (the store answers), /metrics, and /openapi.json, which
describes all of it. Logs go to stderr; RUST_LOG=debug says more.";

/// Why these arguments make no service.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// `--store` names neither kind of store.
    #[error(
        "--store is `memory` or an address that begins with redis://, redis-cluster:// or redis-sentinel://"
    )]
    Store,
    /// `--store` looks like Redis, and is no address of one.
    #[error("--store: {0}")]
    Redis(#[from] AddressError),
    /// Certificates are given, and no Redis to use them for.
    #[error("--store-ca and --store-cert are for Redis: --store begins with `rediss` then")]
    Certificates,
    /// Replicas are to be waited for, and there is no Redis to have them.
    #[error("--wait-replicas is for Redis: `memory` has no replicas")]
    Replicas,
    /// A server that takes over is not to be believed, and there is no Redis to have one.
    #[error("--learning-period is for Redis: nothing takes over from `memory`")]
    Learning,
    /// The variable that `--token-env` or `--admin-token-env` names is not set, empty or not text.
    #[error("{argument}: the environment variable {name} holds no token")]
    Token {
        /// Which of the two.
        argument: &'static str,
        /// The variable.
        name: String,
    },
    /// Systemd keeps the socket, so there is nobody to take it over from.
    #[error("--take-over is for an address of its own: `--listen systemd` needs none")]
    TakeOver,
    /// What `--policy` names holds no policy.
    #[error("--policy: it is refused\n{0}")]
    Policy(#[from] PolicyFileError),
}

impl Args {
    /// How it is to be served.
    pub fn manner(&self) -> Result<Manner, ArgsError> {
        if self.take_over && self.listen == Address::Systemd {
            return Err(ArgsError::TakeOver);
        }
        let (max_connections, drain) = (self.max_connections, *self.drain);
        Ok(Manner { max_connections, drain, takes_over: self.take_over })
    }

    /// The service that was asked for. Needs a tokio runtime.
    pub fn app(&self) -> Result<App, ArgsError> {
        let tls = TlsFiles {
            ca: self.store_ca.clone(),
            client: self.store_cert.clone().zip(self.store_key.clone()),
        };
        let app = match self.store.as_str() {
            "memory" if tls.ca.is_some() || tls.client.is_some() => return Err(ArgsError::Certificates),
            "memory" if self.wait_replicas > 0 => return Err(ArgsError::Replicas),
            "memory" if !self.learning_period.is_zero() => return Err(ArgsError::Learning),
            "memory" => App::new(MemoryStore::new().with_max_subjects(self.max_subjects)),
            url if url.starts_with("redis") => {
                let options = Options {
                    tls,
                    timeout: self.store_timeout,
                    clock_warning: *self.clock_warning,
                    wait_replicas: self.wait_replicas,
                    learning_period: self.learning_period,
                };
                App::new(RedisStore::open_with(url, &options)?)
            }
            _ => return Err(ArgsError::Store),
        };
        let app = app.with_max_requests(self.max_requests);
        let app = match token("--token-env", self.token_env.as_ref())? {
            Some(token) => app.with_token(token),
            None => app,
        };
        let app = match token("--admin-token-env", self.admin_token_env.as_ref())? {
            Some(token) => app.with_admin_token(token),
            None => app,
        };
        let Some(path) = &self.policy else { return Ok(app) };
        let policy = Arc::new(PolicyFile::open(path)?);
        policy.watch();
        Ok(app.with_policy(policy))
    }
}

fn token(argument: &'static str, name: Option<&String>) -> Result<Option<String>, ArgsError> {
    let Some(name) = name else { return Ok(None) };
    match std::env::var(name) {
        Ok(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(ArgsError::Token { argument, name: name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::listen::GRACE;
    use crate::redis::{ACL_RULES, CLUSTER_ACL_RULES, SENTINEL_ACL_RULES, WAIT_ACL_RULES};

    fn refusal(words: &[&str]) -> String {
        let args = Args::parse_from([&["lanekeeper-shim"], words].concat());
        args.app().err().unwrap().to_string()
    }

    #[test]
    fn help_names_what_a_redis_user_needs() {
        let help = Args::command().render_long_help().to_string();
        for rules in [ACL_RULES, CLUSTER_ACL_RULES, SENTINEL_ACL_RULES, WAIT_ACL_RULES] {
            assert!(help.contains(rules), "{help}");
        }
    }

    #[test]
    fn certificates_need_a_redis_with_tls() {
        let problem = "--store-ca and --store-cert are for Redis: --store begins with `rediss` then";
        assert_eq!(refusal(&["--store", "memory", "--store-ca", "ca.pem"]), problem);
        let key_alone = ["lanekeeper-shim", "--store", "rediss://r", "--store-key", "key.pem"];
        assert!(Args::try_parse_from(key_alone).is_err());
    }

    #[test]
    fn there_is_nobody_to_take_over_a_socket_of_systemd_from() {
        let args =
            Args::parse_from(["lanekeeper-shim", "--store", "memory", "--listen", "systemd", "--take-over"]);
        assert!(args.manner().unwrap_err().to_string().starts_with("--take-over is for an address"));
    }

    #[test]
    fn the_unit_for_systemd_starts_it_and_lets_it_end() {
        let unit = include_str!("../systemd/lanekeeper-shim.service");
        let set =
            |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
        let words = set("ExecStart").split(' ').chain(["--store", "memory"]);
        let args = Args::try_parse_from(words).unwrap();
        assert_eq!(args.listen, Address::Systemd);
        let stops = Duration::from_secs(set("TimeoutStopSec").parse().unwrap());
        assert!(stops > args.manner().unwrap().drain + GRACE);
        assert!(set("LimitNOFILE").parse::<u32>().unwrap() > 2 * args.max_connections);
    }

    #[test]
    fn replicas_need_a_redis() {
        let problem = "--wait-replicas is for Redis: `memory` has no replicas";
        assert_eq!(refusal(&["--store", "memory", "--wait-replicas", "1"]), problem);
        let problem = "--learning-period is for Redis: nothing takes over from `memory`";
        assert_eq!(refusal(&["--store", "memory", "--learning-period", "1s"]), problem);
    }

    #[test]
    fn says_which_stores_there_are() {
        assert!(refusal(&["--store", "postgres://p"]).contains("redis://"));
    }
}
