//! Frames that are dropped, doubled and swapped.

use control_plane_domain::{Ordinal, RunId, RunState, SessionId};
use control_plane_insights::completeness::{Completeness, Range, Says, Status};
use control_plane_runtime::Client;
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::frames::{Edit, FrameProxy};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::script::Script;
use control_plane_testkit::{DEADLINE, message, play, script, wait_for};
use futures_util::future::join_all;

use super::support::Rig;
use super::{About, says, settled};

const EVERY_TIME: usize = usize::MAX;

struct Stage {
    runtime: RuntimeProcess,
    cast: Cast,
    proxy: FrameProxy,
    rig: Rig,
}

impl Stage {
    async fn set(kind: Kind) -> Self {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let proxy = FrameProxy::to(runtime.address()).await;
        let client = Client::new(&proxy.client_config(runtime.client_config())).unwrap();
        let rig = Rig::start(kind, client);
        Self { runtime, cast, proxy, rig }
    }

    /// A run that waits for its session.
    async fn post(&self, script: &Script) -> (SessionId, RunId) {
        let session = SessionId::random();
        let run = self.rig.post(&session, script.mode).await;
        self.rig.reaches(run, RunState::Starting).await;
        (session, run)
    }

    /// A whole conversation with these edits, while it is followed.
    async fn followed(&self, script: &Script, edits: &[(Ordinal, Edit, usize)]) -> Completeness {
        let (session, run) = self.post(script).await;
        self.plan(&session, edits);
        play::perform(&self.cast, &session, script).await;
        self.ended(run).await
    }

    /// The same, followed when it is over.
    async fn read_later(&self, script: &Script, edits: &[(Ordinal, Edit, usize)]) -> Completeness {
        let session = SessionId::random();
        play::perform(&self.cast, &session, script).await;
        self.plan(&session, edits);
        let run = self.rig.post(&session, script.mode).await;
        self.ended(run).await
    }

    fn plan(&self, session: &SessionId, edits: &[(Ordinal, Edit, usize)]) {
        for (ordinal, edit, times) in edits {
            self.proxy.edit(session, *ordinal, *edit, *times);
        }
    }

    async fn ended(&self, run: RunId) -> Completeness {
        let ask = async || self.rig.store.run_get(run).await.unwrap().state;
        wait_for(DEADLINE, ask, |state| state.is_terminal()).await;
        self.rig.log_is_sound(run).await;
        settled(&self.rig, run).await
    }

    async fn stop(self) {
        self.rig.stop().await;
        drop(self.runtime);
    }
}

/// How many envelopes a script has with its `SessionStart`.
fn length(script: &Script) -> Ordinal {
    Ordinal::try_from(script.lines.len()).unwrap() + 1
}

/// The runtime's ordinals that are said to be missing for good.
fn missing(judged: &Completeness) -> Vec<(Ordinal, Ordinal)> {
    let range = |range: &Range| match range {
        Range::Envelopes { from_ordinal, to_ordinal: Some(to), .. } => Some((*from_ordinal, *to)),
        Range::Envelopes { .. } | Range::Messages { .. } | Range::Signals { .. } => None,
    };
    judged.ranges.iter().filter_map(range).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_never_came_is_named_in_every_mode() {
    // All modes on one database, and one on the other: what differs is not what is stored.
    for (kind, modes) in [(Kind::Sqlite, &script::ALL[..]), (Kind::Postgres, &script::ALL[..1])] {
        let stage = Stage::set(kind).await;
        for make in modes {
            let script = make();
            let without = async |lost: Ordinal| {
                let edits = [(lost, Edit::Drop, 1)];
                let followed = stage.followed(&script, &edits).await;
                (lost, [followed, stage.read_later(&script, &edits).await])
            };
            for (lost, both) in join_all((1..length(&script)).map(without)).await {
                for judged in both {
                    let what = format!("{} without {lost}: {judged:#?}", script.mode);
                    assert_eq!(judged.status, Status::Gap, "{what}");
                    assert_eq!(missing(&judged), [(lost, lost)], "{what}");
                    assert_eq!(says(&judged, About::Count), Says::Contradicts, "{what}");
                    // The log says so already, so who said it is not missing twice.
                    assert_ne!(says(&judged, About::Activity), Says::Contradicts, "{what}");
                    assert_eq!(says(&judged, About::Log), Says::Supports, "{what}");
                }
            }
        }
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_frames_that_never_came_are_all_named() {
    let stage = Stage::set(Kind::Sqlite).await;
    let script = script::decision().with_more(20);
    let edits = [3, 4, 9].map(|lost| (lost, Edit::Drop, 1));

    let judged = stage.followed(&script, &edits).await;

    assert_eq!(missing(&judged), [(3, 4), (9, 9)], "{judged:#?}");
    let state = stage.rig.state(judged.run_id).await;
    assert_eq!(state["run"]["historyGap"]["missing"], 3, "{state:#}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_long_before_the_end_is_counted() {
    let stage = Stage::set(Kind::Sqlite).await;
    let script = script::decision().with_more(400);

    let judged = stage.followed(&script, &[(5, Edit::Drop, 1)]).await;

    assert_eq!(judged.status, Status::Gap, "{judged:#?}");
    assert_eq!(says(&judged, About::Count), Says::Contradicts);
    let [Range::Envelopes { from_ordinal, to_ordinal, missing, .. }] = judged.ranges.as_slice()
    else {
        panic!("{judged:#?}")
    };
    assert_eq!((*from_ordinal, *missing), (1, Some(1)));
    assert!(to_ordinal.is_some_and(|to| to >= 5 && to < length(&script)), "{judged:#?}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_frame_that_was_lost_once_is_brought_by_the_next_subscription() {
    for (kind, modes) in [(Kind::Sqlite, &script::ALL[..]), (Kind::Postgres, &script::ALL[..1])] {
        let stage = Stage::set(kind).await;
        for make in modes {
            let script = make();
            let edits = [(length(&script), Edit::Drop, 1)];
            let judged = stage.followed(&script, &edits).await;
            assert_eq!(judged.status, Status::Complete, "{judged:#?}");
            assert_eq!(judged.recorded, length(&script));
        }
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commitment_that_never_comes_is_a_gap_without_an_end() {
    let stage = Stage::set(Kind::Sqlite).await;
    let script = script::task();
    let edits = [(length(&script), Edit::Drop, EVERY_TIME)];

    let judged = stage.followed(&script, &edits).await;

    assert_eq!(judged.status, Status::Gap, "{judged:#?}");
    assert_eq!(says(&judged, About::Ending), Says::Contradicts);
    assert_eq!(says(&judged, About::Activity), Says::Contradicts);
    let alice = Range::Messages { participant_id: "alice".to_owned(), missing: 1 };
    assert!(judged.ranges.contains(&alice), "{judged:#?}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_comes_twice_moves_nothing_in_any_mode() {
    for (kind, modes) in [(Kind::Sqlite, &script::ALL[..]), (Kind::Postgres, &script::ALL[..1])] {
        let stage = Stage::set(kind).await;
        for make in modes {
            let script = make();
            let edits: Vec<_> = (1..=length(&script)).map(|at| (at, Edit::Double, 1)).collect();
            let followed = stage.followed(&script, &edits).await;
            let read_later = stage.read_later(&script, &edits).await;
            for judged in [followed, read_later] {
                assert_eq!(judged.status, Status::Complete, "{}: {judged:#?}", script.mode);
                assert_eq!(judged.recorded, length(&script));
            }
        }
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_in_another_order_are_never_called_complete() {
    let stage = Stage::set(Kind::Sqlite).await;
    for make in script::ALL {
        let script = make();
        let swapped = async |at: Ordinal| stage.followed(&script, &[(at, Edit::Swap, 1)]).await;
        for judged in join_all((1..length(&script) - 1).map(swapped)).await {
            // Nothing is missing, and it is not what the runtime has.
            assert_eq!(judged.status, Status::Unknown, "{}: {judged:#?}", script.mode);
            assert_eq!(says(&judged, About::Count), Says::Contradicts, "{judged:#?}");
            assert_eq!(judged.recorded, length(&script));
        }
        // Behind the Commitment nothing is waited for, so what it overtook is missing.
        let before_last = [(length(&script) - 1, Edit::Swap, 1)];
        let judged = stage.followed(&script, &before_last).await;
        assert_eq!(judged.status, Status::Gap, "{}: {judged:#?}", script.mode);
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_noticed_when_the_stream_is_opened_again() {
    for kind in Kind::ALL {
        let stage = Stage::set(kind).await;
        let script = script::decision();
        let (session, run) = stage.post(&script).await;
        stage.plan(&session, &[(2, Edit::Drop, 1)]);
        let spec = SessionSpec::new(script.mode, script.participants).with_id(&session);
        stage.cast.alice.start_session(&spec).await;
        for line in &script.lines[..3] {
            let speaker = line.speaker.of(&stage.cast);
            speaker.say(&session, script.mode, line.message.clone()).await;
        }
        stage.rig.has_recorded(run, 3).await;

        stage.proxy.cut();

        stage.rig.fails_with(run, "SESSION_DIVERGED").await;
        let judged = settled(&stage.rig, run).await;
        assert_eq!(judged.status, Status::Gap, "{judged:#?}");
        assert_eq!(says(&judged, About::Overlaps), Says::Contradicts);
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_cancelled_is_held_against_a_second_subscription() {
    for kind in Kind::ALL {
        let stage = Stage::set(kind).await;
        // What becomes of which frame of 1 to 4, and what is said then.
        let table = [
            (None, Status::Complete),
            (Some((4, Edit::Drop)), Status::Complete),
            (Some((4, Edit::Double)), Status::Complete),
            (Some((2, Edit::Drop)), Status::Gap),
            // What is recorded last is not the runtime's last, as if the session were another.
            (Some((3, Edit::Swap)), Status::Gap),
        ];
        for (edited, expected) in table {
            for is_followed in [true, false] {
                let script = script::decision();
                let session = SessionId::random();
                let edits: Vec<_> = edited.into_iter().map(|(at, edit)| (at, edit, 1)).collect();
                stage.plan(&session, &edits);
                let spec = SessionSpec::new(script.mode, script.participants).with_id(&session);
                let post = async || stage.rig.post(&session, message::DECISION).await;
                let early = if is_followed { Some(post().await) } else { None };
                stage.cast.alice.start_session(&spec).await;
                for line in &script.lines[..3] {
                    let speaker = line.speaker.of(&stage.cast);
                    speaker.say(&session, script.mode, line.message.clone()).await;
                }
                stage.cast.alice.cancel(&session, "enough").await;
                let run = match early {
                    Some(run) => run,
                    None => post().await,
                };
                let judged = stage.ended(run).await;
                let what = format!("{edited:?}, followed {is_followed}: {judged:#?}");
                assert_eq!(judged.status, expected, "{what}");
            }
        }
        stage.stop().await;
    }
}
