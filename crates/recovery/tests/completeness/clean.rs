//! Whole records, whatever happened on the way, and gaps that the runtime itself makes.

use control_plane_domain::{Clock, RunId, RunState, SessionId, SystemClock};
use control_plane_insights::completeness::{Asked, Range, Says, Status, judge, read};
use control_plane_insights::diagnosis;
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::{message, play, script};
use serde_json::json;

use super::support::Rig;
use super::{About, evidence, judged, says, settled};

/// The first lines of a Decision.
async fn begin(cast: &Cast, session: &SessionId) -> Vec<String> {
    let script = script::decision();
    let spec = SessionSpec::new(script.mode, script.participants).with_id(session);
    let mut accepted = vec![cast.alice.start_session(&spec).await];
    accepted.extend(go_on(cast, session, 0..4).await);
    accepted
}

/// Some of its lines.
async fn go_on(cast: &Cast, session: &SessionId, lines: std::ops::Range<usize>) -> Vec<String> {
    let mut accepted = Vec::new();
    for line in &script::decision().lines[lines] {
        let speaker = line.speaker.of(cast);
        accepted.push(speaker.say(session, message::DECISION, line.message.clone()).await);
    }
    accepted
}

async fn finish(cast: &Cast, session: &SessionId) -> Vec<String> {
    let lines = script::decision().lines.len();
    go_on(cast, session, 4..lines).await
}

async fn followed(rig: &Rig, cast: &Cast) -> (SessionId, RunId, Vec<String>) {
    let session = SessionId::random();
    let run = rig.post(&session, message::DECISION).await;
    let accepted = begin(cast, &session).await;
    rig.has_recorded(run, accepted.len()).await;
    (session, run, accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_counts_as_we_do_in_every_mode() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut runs = Vec::new();
        for make in script::ALL {
            let (session, script) = (SessionId::random(), make());
            let run = rig.post(&session, script.mode).await;
            rig.reaches(run, RunState::Starting).await;
            runs.push((run, play::perform(&cast, &session, &script).await));
        }
        let session = SessionId::random();
        let run = rig.post(&session, message::HANDOFF).await;
        runs.push((run, play::implicit_handoff(&cast, &session).await));

        for (run, accepted) in runs {
            rig.reaches(run, RunState::Completed).await;
            rig.is_whole(run, &accepted).await;
            let judged = settled(&rig, run).await;
            assert_eq!(judged.status, Status::Complete, "{judged:#?}");
            for about in [
                About::End,
                About::Ordinals,
                About::Log,
                About::Gaps,
                About::Count,
                About::Activity,
                About::Ending,
                About::Signals,
            ] {
                assert_eq!(says(&judged, about), Says::Supports, "{about:?}: {judged:#?}");
            }
            let count = &evidence(&judged, About::Count).figures;
            assert_eq!(
                (&count["comparedFrom"], &count["total"]),
                (&json!(1), &json!(accepted.len()))
            );
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_goes_on_is_unknown_and_says_what_is_lacking() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let (session, run, _) = followed(&rig, &cast).await;

    let now = judged(&rig, run).await;
    let info = rig.engine.runtime().get_session(&session).await.unwrap();
    let told = Asked::Told(Box::new(info));
    let asked = judge(&read(&rig.store, run, told, SystemClock.now()).await.unwrap());

    assert_eq!((now.status, now.history), (Status::Unknown, Status::Unknown));
    assert!(now.summary.contains("more may come"), "{}", now.summary);
    assert_eq!(now.ranges, []);
    // What is not recorded yet is not lost.
    assert_eq!(says(&asked, About::Activity), Says::SaysNothing, "{asked:#?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_ours_leaves_a_whole_history_and_a_gap_in_the_signals() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let (session, run, mut accepted) = followed(&rig, &cast).await;

        let (database, client, config) = rig.stop().await;
        accepted.extend(finish(&cast, &session).await);
        let rig = Rig::resume(database, client, config);

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &accepted).await;
        let judged = settled(&rig, run).await;
        assert_eq!(judged.history, Status::Complete, "{judged:#?}");
        assert_eq!(says(&judged, About::Overlaps), Says::Supports);
        let overlaps = &evidence(&judged, About::Overlaps).figures;
        assert_eq!((&overlaps["reattaches"], &overlaps["overlapsShown"]), (&json!(1), &json!(1)));
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_runtime_leaves_a_whole_history_although_it_counts_anew() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let (session, run, mut accepted) = followed(&rig, &cast).await;

        runtime.kill().await;
        runtime.restart().await;
        let cast = runtime.cast().await;
        accepted.extend(finish(&cast, &session).await);

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &accepted).await;
        let judged = settled(&rig, run).await;
        assert_eq!(judged.history, Status::Complete, "{judged:#?}");
        assert_eq!(says(&judged, About::Activity), Says::SaysNothing, "{judged:#?}");
        assert_eq!(says(&judged, About::Overlaps), Says::Supports, "{judged:#?}");
        // Nobody could listen meanwhile: diagnosis and completeness name the same times.
        assert_eq!((judged.signals, judged.status), (Status::Gap, Status::Gap), "{judged:#?}");
        let facts = diagnosis::read(&rig.store, run, SystemClock.now()).await.unwrap();
        let gaps = diagnosis::diagnose(&facts).signal_gaps;
        let ranges: Vec<Range> = gaps
            .into_iter()
            .map(|gap| Range::Signals { from: gap.from, to: gap.to, reason: gap.reason })
            .collect();
        assert_eq!(judged.ranges, ranges);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_compacts_ends_tells_how_many_there_were() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let (session, clean, mut accepted) = followed(&rig, &cast).await;
        accepted.extend(finish(&cast, &session).await);
        rig.reaches(clean, RunState::Completed).await;
        let (session, cut, recorded) = followed(&rig, &cast).await;

        let (database, client, config) = rig.stop().await;
        let rest = finish(&cast, &session).await;
        let rig = Rig::resume(database, client, config);

        let clean = settled(&rig, clean).await;
        assert_eq!(clean.history, Status::Complete, "{clean:#?}");
        assert_eq!(clean.recorded, i64::try_from(accepted.len()).unwrap());
        rig.reaches(cut, RunState::Completed).await;
        let cut = settled(&rig, cut).await;
        let from_ordinal = i64::try_from(recorded.len()).unwrap() + 1;
        let missing = i64::try_from(rest.len()).unwrap();
        let range = Range::Envelopes {
            from_ordinal,
            to_ordinal: Some(from_ordinal + missing - 1),
            missing: Some(missing),
            reason: "HISTORY_UNAVAILABLE".to_owned(),
        };
        assert_eq!((cut.history, &cut.ranges[0]), (Status::Gap, &range), "{cut:#?}");
        assert_eq!(says(&cut, About::Ordinals), Says::Supports, "{cut:#?}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_runtime_lost_is_a_gap_without_an_end() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let (_, run, accepted) = followed(&rig, &cast).await;

    runtime.kill().await;
    runtime.restart_empty().await;

    rig.fails_with(run, "SESSION_GONE").await;
    let judged = settled(&rig, run).await;
    assert_eq!(judged.history, Status::Gap, "{judged:#?}");
    let range = Range::Envelopes {
        from_ordinal: i64::try_from(accepted.len()).unwrap() + 1,
        to_ordinal: None,
        missing: None,
        reason: "SESSION_GONE".to_owned(),
    };
    assert!(judged.ranges.contains(&range), "{judged:#?}");
    rig.stop().await;
}
