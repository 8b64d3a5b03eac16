//! Processes that share a database and a runtime, and a reader beside them.

use control_plane_domain::{EventType, RunId, SessionId};
use control_plane_insights::integrity;
use control_plane_storage::model::EventFilter;
use control_plane_storage::{Access, Config, DatabaseUrl, Store};
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::TestDb;
use control_plane_testkit::message;
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::{OBSERVER_TOKEN, RuntimeProcess};
use control_plane_testkit::{DEADLINE, wait_for};
use tokio::task::JoinSet;

use crate::support::{Talk, descriptor};

/// A run, and what the agents say in its session.
pub(crate) type Told = (RunId, Talk);

pub(crate) struct Fleet {
    pub(crate) servers: Vec<ServerProcess>,
    pub(crate) store: Store,
    pub(crate) database: TestDb,
}

impl Fleet {
    pub(crate) async fn of(count: usize, runtime: &RuntimeProcess) -> Self {
        let database = TestDb::postgres();
        let mut servers = Vec::new();
        for _ in 0..count {
            let server = ServerProcess::serve()
                .env("DATABASE_URL", database.url())
                .env("RUNTIME_ADDRESS", runtime.address())
                .env("RUNTIME_BEARER_TOKEN", OBSERVER_TOKEN)
                .env("RUNTIME_ALLOW_INSECURE", "true")
                .env("LOG_LEVEL", "info");
            servers.push(server.spawn());
        }
        for server in &mut servers {
            server.wait_until_ready(DEADLINE).await;
        }
        let url = DatabaseUrl::parse(database.url()).unwrap();
        let store = Store::connect(&Config { access: Access::Read, ..Config::new(url) }).unwrap();
        Self { servers, store, database }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(ServerProcess::base_url).collect()
    }

    /// Posts a run at one of the processes.
    pub(crate) async fn post(&self, at: usize, session: &SessionId) -> RunId {
        let body = descriptor(session, message::DECISION);
        let (status, answer) = self.servers[at].post("/runs", &body).await;
        assert_eq!(status, 201, "{answer:#}");
        answer["runId"].as_str().unwrap().parse().unwrap()
    }

    /// Sessions and their runs, posted in turn at all processes. They are all followed.
    pub(crate) async fn open(&self, cast: &Cast, count: usize) -> Vec<Told> {
        let mut told = Vec::new();
        for index in 0..count {
            let talk = Talk::open(cast).await;
            told.push((self.post(index % self.servers.len(), &talk.session).await, talk));
        }
        for (run, talk) in &told {
            self.has_recorded(*run, talk.accepted.len()).await;
        }
        told
    }

    pub(crate) async fn has_recorded(&self, run: RunId, envelopes: usize) {
        let ask = async || self.store.list_raw_by_run(run, 0, 100_000).await.unwrap().len();
        wait_for(DEADLINE, ask, |count| *count >= envelopes).await;
    }

    /// How many events are recorded over all runs.
    pub(crate) async fn events(&self) -> i64 {
        self.store.feed_end().await.unwrap()
    }

    pub(crate) async fn has_events(&self, events: i64) {
        wait_for(DEADLINE, async || self.events().await, |now| *now >= events).await;
    }

    /// How many runs each process follows.
    pub(crate) async fn following(&self) -> Vec<usize> {
        let mut following = Vec::new();
        for server in &self.servers {
            let answer = reqwest::get(server.url("/metrics")).await.unwrap();
            let text = answer.text().await.unwrap();
            let figure = text.lines().find_map(|line| line.strip_prefix("macp_attached_runs "));
            following.push(figure.map_or(0, |figure| figure.trim().parse().unwrap()));
        }
        following
    }

    /// Every run is over and has all that was accepted, once and in order; so has the feed. How
    /// often runs were attached again.
    pub(crate) async fn is_whole(&self, told: &[Told]) -> usize {
        for (run, talk) in told {
            let state = async || self.store.run_get(*run).await.unwrap().state;
            wait_for(DEADLINE, state, |state| state.is_terminal()).await;
            let raw = self.store.list_raw_by_run(*run, 0, 1_000_000).await.unwrap();
            let ids: Vec<&str> = raw.iter().map(|raw| raw.envelope.message_id.as_str()).collect();
            assert_eq!(ids, talk.accepted, "run {run}");
            let found = integrity::check(&self.store, *run).await.unwrap();
            assert!(found.is_sound() && found.gaps.is_empty(), "run {run}: {found:#?}");
        }
        let of = async |types: &[EventType]| {
            let filter =
                EventFilter { types: types.to_vec(), limit: 10_000, ..EventFilter::default() };
            self.store.event_list(&filter).await.unwrap().items
        };
        assert_eq!(of(&[EventType::SessionStreamDiverged]).await, []);
        assert_eq!(of(&[EventType::RunCompleted]).await.len(), told.len());
        let opened = of(&[EventType::SessionStreamOpened]).await;
        let status = |body: &[u8]| String::from_utf8_lossy(body).contains(r#""recovered""#);
        opened.iter().filter(|event| status(&event.body)).count()
    }
}

/// What is said in each session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Say {
    /// So many things that lead nowhere.
    More(usize),
    /// The decision.
    End,
}

/// Says it in all sessions, in several of them at once.
pub(crate) async fn say(cast: &Cast, told: Vec<Told>, what: Say) -> Vec<Told> {
    const LANES: usize = 8;
    let mut lanes: Vec<Vec<Told>> = (0..LANES).map(|_| Vec::new()).collect();
    for (index, told) in told.into_iter().enumerate() {
        lanes[index % LANES].push(told);
    }
    let mut saying = JoinSet::new();
    for mut lane in lanes {
        let cast = cast.clone();
        saying.spawn(async move {
            for (_, talk) in &mut lane {
                match what {
                    Say::More(times) => {
                        for _ in 0..times {
                            talk.evaluate(&cast).await;
                        }
                    }
                    Say::End => talk.end(&cast).await,
                }
            }
            lane
        });
    }
    saying.join_all().await.into_iter().flatten().collect()
}
