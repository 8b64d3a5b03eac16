//! Sessions in every state, seen before and after they begin.

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};
use control_plane_testkit::{DEADLINE, play, wait_until};

use serde_json::json;

use super::support::Rig;
use super::{discovering, ended, opened, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_nobody_posted_is_recorded_from_its_first_envelope_to_its_last() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let (before, after) = (SessionId::random(), SessionId::random());
        let mut early = opened(&cast, &before).await;
        let rig = Rig::with_config(kind, runtime.client(), discovering());
        let mut late = opened(&cast, &after).await;

        for (session, accepted) in [(&before, &mut early), (&after, &mut late)] {
            let run = rig.finds(session).await;
            rig.reaches(run, RunState::Running).await;
            ended(&cast, session, accepted).await;
            rig.reaches(run, RunState::Completed).await;

            rig.is_whole(run, accepted).await;
            assert_eq!(run.to_string(), session.as_str());
            let found = rig.store.run_get(run).await.unwrap();
            assert_eq!(found.source_kind.as_deref(), Some("session-discovery"));
            assert!(found.is_unclaimed());
            let state = rig.state(run).await;
            let seen: Vec<&str> = state["participants"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["participantId"].as_str().unwrap())
                .collect();
            assert_eq!(seen, ["alice", "bob", "carol"]);
            assert_eq!(state["run"]["status"], "completed");
        }
        assert_eq!(rig.count_runs().await, 2);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_over_or_suspended_are_recorded_as_what_they_are() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let sessions: Vec<SessionId> = (0..4).map(|_| SessionId::random()).collect();
        let resolved = play::decision(&cast, &sessions[0]).await;
        let cancelled = opened(&cast, &sessions[1]).await;
        cast.alice.cancel(&sessions[1], "never mind").await;
        let mut short = spec(&sessions[2]);
        short.ttl_ms = 50;
        let expired = vec![cast.alice.start_session(&short).await];
        let suspended = opened(&cast, &sessions[3]).await;
        cast.alice.suspend(&sessions[3], "lunch").await;

        let rig = Rig::with_config(kind, runtime.client(), discovering());

        for (session, state, accepted) in [
            (&sessions[0], RunState::Completed, &resolved),
            (&sessions[1], RunState::Cancelled, &cancelled),
            (&sessions[2], RunState::Failed, &expired),
            (&sessions[3], RunState::Suspended, &suspended),
        ] {
            let run = rig.finds(session).await;
            rig.reaches(run, state).await;
            rig.has_recorded(run, accepted.len()).await;
            rig.is_whole(run, accepted).await;
        }
        let run = rig.finds(&sessions[2]).await;
        rig.fails_with(run, "SESSION_EXPIRED").await;
        let run = rig.finds(&sessions[3]).await;
        cast.alice.resume(&sessions[3], "back").await;
        rig.reaches(run, RunState::Running).await;
        assert_eq!(rig.count_runs().await, 4);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_over_and_compacted_is_recorded_with_its_gap_and_its_decision() {
    let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
    let cast = runtime.cast().await;
    let session = SessionId::random();
    let accepted = play::decision(&cast, &session).await;

    let rig = Rig::with_config(Kind::Postgres, runtime.client(), discovering());

    let run = rig.finds(&session).await;
    rig.reaches(run, RunState::Completed).await;
    let gap = rig.has_event(run, "session.stream.gap").await;
    assert_eq!(
        (&gap.data["fromOrdinal"], &gap.data["toOrdinal"]),
        (&json!(1), &json!(accepted.len()))
    );
    rig.has_event(run, "decision.finalized").await;
    rig.log_is_sound(run).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_id_is_no_uuid_gets_a_run_with_an_id_of_its_own() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::with_config(kind, runtime.client(), discovering());
        let plain = SessionId::parse("checkout_of_order-4711-in-march").unwrap();
        // Hexadecimal digits without hyphens are no UUID as the runtime writes them.
        let digits = SessionId::parse("0190b6c46f2a7cc39d5e1f2a3b4c5d6e").unwrap();

        for session in [&plain, &digits] {
            let mut accepted = opened(&cast, session).await;
            let run = rig.finds(session).await;
            ended(&cast, session, &mut accepted).await;
            rig.reaches(run, RunState::Completed).await;
            rig.is_whole(run, &accepted).await;
            assert_ne!(run.to_string().replace('-', ""), session.as_str());
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_named_like_another_ones_run_is_recorded_all_the_same() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::with_config(Kind::Sqlite, runtime.client(), discovering());
    let posted = SessionId::random();
    let first = rig.post(&posted, message::DECISION).await;

    let namesake = SessionId::parse(&first.to_string()).unwrap();
    let accepted = opened(&cast, &namesake).await;

    let ask = async || rig.count_runs().await == 2;
    wait_until(DEADLINE, ask).await;
    let known = rig.store.sessions_known(std::slice::from_ref(&namesake)).await.unwrap();
    let (second, _) = known.runs[&namesake];
    assert_ne!(second, first);
    rig.has_recorded(second, accepted.len()).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_run_was_deleted_is_not_found_again() {
    for kind in Kind::ALL {
        let scripted = ScriptedRuntime::start().await;
        let rig = Rig::with_config(kind, scripted.client(), discovering());
        let session = SessionId::random();
        scripted.open_session(&spec(&session), "alice");
        let commitment = message::commitment("c", "decision.selected", Outcome::Positive);
        scripted.resolve(&session, "alice", commitment);
        let run = rig.finds(&session).await;
        rig.reaches(run, RunState::Completed).await;
        rig.store
            .run_delete(run, control_plane_domain::time::from_unix_ms(1).unwrap())
            .await
            .unwrap();

        // Once more all of them are told, and listed.
        let (database, client, config) = rig.stop().await;
        let rig = Rig::resume(database, client, config);
        let marker = SessionId::random();
        scripted.open_session(&spec(&marker), "alice");
        rig.finds(&marker).await;
        let listed = scripted.calls("ListSessions");
        wait_until(DEADLINE, async || scripted.calls("ListSessions") >= listed + 3).await;

        assert_eq!(rig.count_runs().await, 1);
        let again = rig.post(&session, message::DECISION).await;
        assert_ne!(again, run);
        rig.reaches(again, RunState::Completed).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_discovery_only_what_is_posted_has_a_run() {
    let scripted = ScriptedRuntime::start().await;
    let off = control_plane_recovery::Config { discovery_enabled: false, ..discovering() };
    let rig = Rig::with_config(Kind::Sqlite, scripted.client(), off);
    let (stranger, ours) = (SessionId::random(), SessionId::random());
    scripted.open_session(&spec(&stranger), "alice");
    let run = rig.post(&ours, message::DECISION).await;
    scripted.open_session(&spec(&ours), "alice");

    rig.reaches(run, RunState::Running).await;
    let listed = scripted.calls("ListSessions");
    wait_until(DEADLINE, async || scripted.calls("ListSessions") >= listed + 3).await;

    assert_eq!(rig.count_runs().await, 1);
    scripted.set_state(&ours, control_plane_domain::SessionState::Suspended);
    rig.reaches(run, RunState::Suspended).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_watch_missed_because_it_was_too_slow_is_found() {
    let scripted = ScriptedRuntime::start().await;
    let rig = Rig::with_config(Kind::Postgres, scripted.client(), discovering());
    let first = SessionId::random();
    scripted.open_session(&spec(&first), "alice");
    rig.finds(&first).await;
    let watches = scripted.calls("WatchSessions");

    scripted.lag_watches();
    // Nor can it be opened again for long: only the lists tell.
    for _ in 0..1000 {
        scripted.fail_next("WatchSessions", UnaryFault::Fail(Failure::Lagged));
    }
    let second = SessionId::random();
    scripted.open_session(&spec(&second), "alice");

    let run = rig.finds(&second).await;
    rig.reaches(run, RunState::Running).await;
    wait_until(DEADLINE, async || scripted.calls("WatchSessions") >= watches + 3).await;
    assert_eq!(rig.count_runs().await, 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_we_may_not_observe_fails_one_run_and_not_one_per_list() {
    let scripted = ScriptedRuntime::start().await;
    let rig = Rig::with_config(Kind::Sqlite, scripted.client(), discovering());
    let session = SessionId::random();
    scripted.fail_next("GetSession", UnaryFault::Fail(Failure::Forbidden));
    scripted.open_session(&spec(&session), "alice");

    let run = rig.finds(&session).await;
    rig.fails_with(run, "FORBIDDEN").await;
    let listed = scripted.calls("ListSessions");
    wait_until(DEADLINE, async || scripted.calls("ListSessions") >= listed + 3).await;
    assert_eq!(rig.count_runs().await, 1);

    // Whoever posts it now gets a run that works.
    let posted = rig.post(&session, message::DECISION).await;
    assert_ne!(posted, run);
    rig.reaches(posted, RunState::Running).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_gone_before_it_could_be_attached_is_settled_by_its_receipt() {
    for kind in Kind::ALL {
        let scripted = ScriptedRuntime::start().await;
        let session = SessionId::random();
        scripted.open_session(&spec(&session), "alice");
        let commitment = message::commitment("c", "decision.selected", Outcome::Positive);
        scripted.resolve(&session, "alice", commitment);
        scripted.fail_next("GetSession", UnaryFault::Fail(Failure::NotFound));

        let rig = Rig::with_config(kind, scripted.client(), discovering());

        let run = rig.finds(&session).await;
        rig.reaches(run, RunState::Completed).await;
        rig.has_event(run, "decision.finalized").await;
        rig.log_is_sound(run).await;
        rig.stop().await;
    }
}
