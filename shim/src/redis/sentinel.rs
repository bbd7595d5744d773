//! Which server is the master: a fixed one, or the one that Sentinel names.

use lanekeeper_engine::wire::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, Value};
use tokio::time::timeout;

use super::address::Address;
use super::link::{PATIENCE, connect, not_connected};
use crate::store::NotReady;

/// What a link leads to.
pub(super) enum Server {
    Known(ConnectionInfo),
    Elected(Sentinels),
}

/// Some Sentinels, and the master that they are asked for.
pub(super) struct Sentinels {
    /// The Sentinels. They are asked in this order, and the first that answers is believed.
    pub(super) sentinels: Vec<ConnectionInfo>,
    /// The name of the master.
    pub(super) name: String,
    /// How the master is spoken to.
    pub(super) manner: ConnectionInfo,
}

impl Server {
    /// What it is called in logs.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Known(server) => server.addr().to_string(),
            Self::Elected(sentinels) => sentinels.name.clone(),
        }
    }

    /// Where it is now.
    pub(super) async fn find(&self) -> Result<ConnectionInfo, NotReady> {
        match self {
            Self::Known(server) => Ok(server.clone()),
            Self::Elected(sentinels) => sentinels.find().await,
        }
    }

    /// Refuses a server that is no master. After a failover the old one is named for a while, and it may be back
    /// as a replica before.
    pub(super) async fn check(&self, connection: &mut MultiplexedConnection) -> Result<(), NotReady> {
        if let Self::Known(_) = self {
            return Ok(());
        }
        match ask(connection, &redis::cmd("ROLE")).await? {
            Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(()),
            Value::ServerError(error) => Err(not_connected(&error.into())),
            _ => {
                Err(NotReady::because(StoreError::Unreachable, "the server that Sentinel names is no master"))
            }
        }
    }

    /// Whether `server` is certainly not the master any more. A Sentinel that does not answer says nothing of it.
    pub(super) async fn has_moved_from(&self, server: &ConnectionInfo) -> bool {
        match self {
            Self::Known(_) => false,
            Self::Elected(sentinels) => {
                sentinels.find().await.is_ok_and(|master| master.addr() != server.addr())
            }
        }
    }
}

impl Sentinels {
    async fn find(&self) -> Result<ConnectionInfo, NotReady> {
        let mut problem = NotReady::from(StoreError::Unreachable);
        for sentinel in &self.sentinels {
            match self.find_from(sentinel).await {
                Ok(master) => return Ok(master),
                Err(NotReady { error, reason, code }) => {
                    let reason = format!("Sentinel {}: {reason}", sentinel.addr());
                    problem = NotReady { error, reason, code };
                }
            }
        }
        Err(problem)
    }

    async fn find_from(&self, sentinel: &ConnectionInfo) -> Result<ConnectionInfo, NotReady> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        match ask(&mut connect(sentinel).await?, &command).await? {
            Value::Array(words) => match Address::of_words(&words) {
                Some(master) => Ok(master.of(&self.manner)),
                None => Err(StoreError::Malformed.into()),
            },
            Value::Nil => {
                Err(NotReady::because(StoreError::Refused, format!("knows no master named {}", self.name)))
            }
            Value::ServerError(error) => Err(not_connected(&error.into())),
            _ => Err(StoreError::Malformed.into()),
        }
    }
}

async fn ask(connection: &mut MultiplexedConnection, command: &redis::Cmd) -> Result<Value, NotReady> {
    match timeout(PATIENCE, connection.send_packed_command(command)).await {
        Ok(answer) => answer.map_err(|error| not_connected(&error)),
        Err(_) => Err(StoreError::Timeout.into()),
    }
}
