//! Whether the user may run what the scripts run, asked before anything is charged.
//!
//! Redis holds a script to what its user may do, command by command and as it goes. A user that may count and not
//! save would leave half a charge, and a key without an expiry. So each command is tried first, in a form that does
//! nothing: whether it is permitted comes before what is wrong with its arguments.

use lanekeeper_engine::wire::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::time::timeout;

use super::link::{PATIENCE, not_connected};
use super::replicas::Replicas;
use crate::store::NotReady;

/// A key that never holds anything. That a user may not touch it does not matter: it may have keys of its own.
const KEY: &str = "lanekeeper:permissions";

/// What the deciding script runs. Not a number, and a field without a value: no argument of these is of use.
const COMMANDS: [&[&str]; 6] = [
    &["time"],
    &["hmget", KEY, "field"],
    &["hget", KEY, "field"],
    &["hset", KEY, "field", "value", "field"],
    &["hdel", KEY, "field"],
    &["pexpireat", KEY, "none"],
];

/// What goes with the scripts where replicas are waited for.
const WAIT: &[&str] = &["wait", "none", "0"];

/// Refuses a server that refuses its user one of the commands.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    replicas: Replicas,
) -> Result<(), NotReady> {
    let wait = (replicas.0 > 0).then_some(WAIT);
    let commands: Vec<&[&str]> = COMMANDS.into_iter().chain(wait).collect();
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for words in &commands {
        let mut command = redis::Cmd::new();
        command.arg(*words);
        pipeline.add_command(command);
    }
    let answers = timeout(PATIENCE, connection.send_packed_commands(&pipeline, 0, commands.len())).await;
    let answers = match answers {
        Ok(answers) => answers.map_err(|error| not_connected(&error))?,
        Err(_) => return Err(StoreError::Timeout.into()),
    };
    let refused = commands.iter().zip(&answers).filter(|(_, answer)| is_refused(answer));
    let refused: Vec<&str> = refused.filter_map(|(words, _)| words.first().copied()).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let reason = format!("redis does not let its user run {}: see --help", refused.join(", "));
    Err(NotReady { code: Some("NOPERM"), ..NotReady::because(StoreError::Refused, reason) })
}

/// Whether it is the command that is refused, and not the key.
fn is_refused(answer: &Value) -> bool {
    let Value::ServerError(error) = answer else { return false };
    let error = RedisError::from(error.clone());
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        && error.detail().is_some_and(|detail| detail.contains("to run the"))
}
