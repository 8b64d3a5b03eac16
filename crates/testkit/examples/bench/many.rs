//! Many sessions in one process: that each is heard, what one costs, and how soon all are attached
//! again after a kill.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane_domain::SessionId;
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::play;
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::RuntimeProcess;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::idle::resident;
use crate::ingest::descriptor;
use crate::{Size, serve};

/// Requests under way at once, and sessions in which something is said at once.
const AT_ONCE: usize = 16;
const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(600);
/// How long after the last event memory is read: what is dropped late is dropped then.
const SETTLE: Duration = Duration::from_secs(5);
/// What is said in a session before it is quiet.
const SAID: usize = 5;

/// A server that follows many sessions.
struct Crowd {
    server: ServerProcess,
    cast: Cast,
    sessions: Vec<SessionId>,
    _runtime: RuntimeProcess,
    _database: TestDb,
}

/// Seconds until something that was said in each of many sessions is recorded for all of them.
pub(crate) async fn heard(kind: Kind, size: Size) -> Result<(f64, f64)> {
    let count = if size == Size::Full { 5000 } else { 50 };
    let mut crowd = Crowd::gather(kind).await;
    crowd.grow(count, 0).await?;

    let began = Instant::now();
    crowd.speak(0, 1).await;
    crowd.has_recorded(2 * count).await?;
    Ok((f64::from(u32::try_from(count)?), began.elapsed().as_secs_f64()))
}

/// Resident memory for each session more, in KiB. It is counted from where what is bounded has its
/// size, the caches and buffers of the database's connections above all.
pub(crate) async fn quiet(kind: Kind, size: Size) -> Result<f64> {
    let (few, many) = if size == Size::Full { (2000, 4000) } else { (20, 60) };
    let mut crowd = Crowd::gather(kind).await;
    let pid = crowd.server.pid().context("the server does not run")?;
    crowd.grow(few, SAID).await?;
    let before = settled(pid).await?;
    crowd.grow(many, SAID).await?;
    let after = settled(pid).await?;
    Ok((after - before) * 1024.0 / f64::from(u32::try_from(many - few)?))
}

async fn settled(pid: u32) -> Result<f64> {
    tokio::time::sleep(SETTLE).await;
    resident(pid)
}

/// Seconds from the start of a process to the moment at which it has attached again all runs of one
/// that was killed.
pub(crate) async fn reattach(kind: Kind, size: Size) -> Result<f64> {
    let count = if size == Size::Full { 1000 } else { 50 };
    let mut crowd = Crowd::gather(kind).await;
    crowd.grow(count, SAID).await?;

    crowd.server.kill();
    let began = Instant::now();
    crowd.server.restart().await;
    crowd.counts(r#"macp_attaches_total{outcome="recovered"}"#, count).await?;
    Ok(began.elapsed().as_secs_f64())
}

impl Crowd {
    async fn gather(kind: Kind) -> Self {
        let runtime = RuntimeProcess::in_memory().await;
        let database = TestDb::new(kind);
        Self {
            server: serve(&runtime, &database).await,
            cast: runtime.cast().await,
            sessions: Vec::new(),
            _runtime: runtime,
            _database: database,
        }
    }

    /// Follows more sessions, until there are `count`, in each of which something was said.
    async fn grow(&mut self, count: usize, said: usize) -> Result<()> {
        let known = self.sessions.len();
        let (server, cast) = (&self.server, &self.cast);
        let opening = (known..count).map(|_| async move {
            let session = SessionId::random();
            play::open_for_load(cast, &session).await;
            let (status, run) = server.post("/runs", &descriptor(&session)).await;
            ensure!(status == 201, "POST /runs answered {status}: {run}");
            Ok(session)
        });
        let opened: Vec<SessionId> =
            stream::iter(opening).buffer_unordered(AT_ONCE).try_collect().await?;
        self.sessions.extend(opened);
        self.counts(r#"macp_attaches_total{outcome="opened"}"#, count).await?;
        self.speak(known, said).await;
        self.has_recorded(count * (1 + said)).await
    }

    /// Says something in each session from the one at `first` on.
    async fn speak(&self, first: usize, said: usize) {
        let cast = &self.cast;
        stream::iter(self.sessions.iter().skip(first))
            .for_each_concurrent(AT_ONCE, |session| async move {
                play::contribute_many(&cast.alice, session, said, 1).await;
            })
            .await;
    }

    async fn has_recorded(&self, envelopes: usize) -> Result<()> {
        self.counts("macp_inbound_messages_total", envelopes).await
    }

    /// Waits until the figure, over all its labels, is this.
    async fn counts(&self, name: &str, wanted: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = f64::from(u32::try_from(wanted)?);
        loop {
            let found = self.figure(name).await?;
            if found >= wanted {
                ensure!(found <= wanted, "{name} is {found}, not {wanted}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name} is {found}, not {wanted}");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn figure(&self, name: &str) -> Result<f64> {
        let text = reqwest::get(self.server.url("/metrics")).await?.text().await?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then_some(())?;
            rest.rsplit_once(' ')?.1.parse::<f64>().ok()
        });
        Ok(values.sum())
    }
}
