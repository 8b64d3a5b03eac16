//! The connection that an instance lives on: its locks hang on it, and it hears hints there.
//!
//! **Invariant:** the server ends this connection when it has heard nothing for [`EXPIRY`], whatever
//! the network between says, so that an instance whose host vanished or froze is dead by then. One
//! that lives is asked to show it much more often than that.

use std::time::Duration;

use diesel::sql_types::BigInt;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use tokio::time::timeout;

use super::instances::CHANNEL;
use super::{Connection, Postgres, connect, instances, settle, unavailable};
use crate::duties::Duty;
use crate::error::{Error, Result};

/// How long an instance that says nothing is believed to live.
const EXPIRY: Duration = Duration::from_secs(7);
/// How long an answer may take before the connection counts as lost.
const ANSWER: Duration = Duration::from_secs(3);
/// How long opening the connection may take, with everything that is said first.
const OPENING: Duration = Duration::from_secs(10);
/// The lock that all who take runs share. `0x6d61_6370` in front keeps it from being an instance.
pub(crate) const TAKERS: i64 = 0x6d61_6370_0000_0010;

/// The advisory lock of a duty.
fn duty_lock(duty: Duty) -> i64 {
    match duty {
        Duty::Discovery => 0x6d61_6370_0000_0002,
        Duty::Signals => 0x6d61_6370_0000_0003,
        Duty::Receipts => 0x6d61_6370_0000_0004,
    }
}

/// What comes from the connection that hints are heard on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// This connection listens from now on.
    Began(u64),
    Said(&'a str),
    /// This connection is gone.
    Lost(u64),
}

/// Whoever is told.
pub(crate) type Ears = dyn Fn(Heard<'_>) + Send + Sync;

/// What this instance is, as long as its connection lives.
#[derive(Default)]
pub(super) struct Liveness {
    life: Option<Life>,
    /// Whether it is to be counted among those that take runs.
    takes_runs: bool,
    connections: u64,
}

/// A connection, and what hangs on it besides the instance's own lock.
struct Life {
    conn: Connection,
    duties: Vec<Duty>,
    is_taker: bool,
}

impl Postgres {
    /// Makes this process alive under `instance` (again, when the connection was lost).
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is away or the number is taken.
    pub(crate) async fn hold(&self, instance: i64) -> Result<()> {
        self.live(&mut *self.liveness.lock().await, instance).await.map(drop)
    }

    /// The same, once: whoever owns a run must be seen to live from the run's first moment.
    pub(crate) async fn hold_once(&self, instance: i64) -> Result<()> {
        let held = self.liveness.lock().await.life.is_some();
        if held { Ok(()) } else { self.hold(instance).await }
    }

    /// Counts `instance`, which lives, among those that take runs, or not any more.
    pub(crate) async fn take_runs(&self, instance: i64, takes_runs: bool) -> Result<()> {
        let mut guard = self.liveness.lock().await;
        guard.takes_runs = takes_runs;
        self.live(&mut guard, instance).await.map(drop)
    }

    /// Whether `instance`, which lives, has this duty, which nobody else has then.
    pub(crate) async fn hold_duty(&self, instance: i64, duty: Duty) -> Result<bool> {
        let mut guard = self.liveness.lock().await;
        let Life { conn, duties, .. } = self.live(&mut guard, instance).await?;
        // A lock that is taken twice would have to be given back twice.
        if duties.contains(&duty) {
            return Ok(true);
        }
        let held = try_lock(conn, duty_lock(duty)).await?;
        if held {
            duties.push(duty);
        }
        Ok(held)
    }

    async fn live<'a>(&self, liveness: &'a mut Liveness, instance: i64) -> Result<&'a mut Life> {
        let Liveness { life, takes_runs, connections } = liveness;
        let answers = match life.as_mut() {
            Some(life) => life.answers().await,
            None => false,
        };
        if !answers {
            *life = None;
            *connections += 1;
            let opening = self.open(instance, *connections);
            let opened = timeout(OPENING, opening).await;
            *life = Some(opened.map_err(|_late| Error::Unavailable("no answer".to_owned()))??);
        }
        let life = life.as_mut().ok_or_else(|| Error::Unavailable("not alive".to_owned()))?;
        if life.is_taker != *takes_runs {
            let change = if *takes_runs { "lock" } else { "unlock" };
            diesel::sql_query(format!("SELECT pg_advisory_{change}_shared($1)"))
                .bind::<BigInt, _>(TAKERS)
                .execute(&mut life.conn)
                .await?;
            life.is_taker = *takes_runs;
        }
        Ok(life)
    }

    async fn open(&self, instance: i64, connection: u64) -> Result<Life> {
        let ears = self.ears.get().cloned();
        let mut conn = connect::establish_listening(self.url.clone(), connection, ears.clone())
            .await
            .map_err(unavailable)?;
        let expiry = EXPIRY.as_millis();
        // The server's own patience decides. That of its network is for a reader who takes no
        // hints any more: then it waits for the network, and not for us.
        conn.batch_execute(&format!(
            "SET idle_session_timeout = {expiry}; SET tcp_user_timeout = {expiry};
             SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1;
             SET tcp_keepalives_count = 5; LISTEN {CHANNEL}"
        ))
        .await?;
        if !try_lock(&mut conn, instance).await? {
            return Err(Error::Unavailable("our own instance lock is still held".to_owned()));
        }
        if let Some(ears) = ears {
            ears(Heard::Began(connection));
        }
        Ok(Life { conn, duties: Vec::new(), is_taker: false })
    }

    /// Sends texts to every instance that listens.
    pub(crate) async fn notify(&self, texts: Vec<String>) -> Result<()> {
        let mut conn = self.connection().await?;
        let done = instances::notify(&mut conn, &texts).await;
        settle(conn, &done);
        done
    }
}

impl Postgres {
    /// Whether some process lives as `instance`. Nothing is locked to find out.
    pub(crate) async fn is_held(&self, instance: i64) -> Result<bool> {
        let mut conn = self.connection().await?;
        let held = instances::held(&mut conn).await;
        settle(conn, &held);
        Ok(held?.contains(&instance))
    }
}

impl Life {
    async fn answers(&mut self) -> bool {
        let asked = diesel::sql_query("SELECT 1").execute(&mut self.conn);
        matches!(timeout(ANSWER, asked).await, Ok(Ok(_)))
    }
}

async fn try_lock(conn: &mut Connection, key: i64) -> Result<bool> {
    diesel::define_sql_function!(
        fn pg_try_advisory_lock(key: diesel::sql_types::BigInt) -> diesel::sql_types::Bool
    );
    Ok(diesel::select(pg_try_advisory_lock(key)).get_result(conn).await?)
}
