//! Every conversation of the testkit, as the real runtime accepts it and an observer reads it.

use crate::common::ids;
use control_plane_domain::runtime::Runtime;
use control_plane_domain::{SessionId, SessionState};
use control_plane_testkit::agent::Cast;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{message, play};

/// Plays it and reads what an observer gets.
async fn observed(
    play: impl AsyncFnOnce(&Cast, &SessionId) -> Vec<String>,
) -> (Vec<String>, Vec<String>, SessionState) {
    let runtime = RuntimeProcess::in_memory().await;
    let (cast, client, session) = (runtime.cast().await, runtime.client(), SessionId::random());
    let said = play(&cast, &session).await;
    let mut stream = client.subscribe(&session, 0).await.unwrap();
    let read = ids(&mut stream, said.len()).await;
    let state = client.get_session(&session).await.unwrap().state;
    (said, read, state)
}

#[tokio::test]
async fn a_decision_is_observed_as_it_was_made() {
    let (said, read, state) = observed(play::decision).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn a_proposal_is_observed_as_it_was_made() {
    let (said, read, state) = observed(play::proposal).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn a_task_is_observed_as_it_was_done() {
    let (said, read, state) = observed(play::task).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn a_handoff_is_observed_as_it_was_done() {
    let (said, read, state) = observed(play::handoff).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn a_handoff_that_the_runtime_accepts_itself_is_observed_in_its_place() {
    let (said, read, state) = observed(play::implicit_handoff).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn a_quorum_is_observed_as_it_was_reached() {
    let (said, read, state) = observed(play::quorum).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn a_refused_quorum_resolves_too() {
    let (said, read, state) = observed(play::quorum_refused).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn rounds_are_observed_as_they_converged() {
    let (said, read, state) = observed(play::multi_round).await;
    assert_eq!((read, state), (said, SessionState::Resolved));
}

#[tokio::test]
async fn signals_and_progress_are_accepted_and_not_part_of_the_session() {
    let runtime = RuntimeProcess::in_memory().await;
    let (cast, session) = (runtime.cast().await, SessionId::random());
    let mut said = vec![play::open_for_load(&cast, &session).await];
    cast.bob.signal(message::llm_call(session.as_str(), "some-model", 10, 20)).await;
    cast.bob.progress(&session, message::MULTI_ROUND, 1.0, 3.0).await;
    let contribution = message::multi_round::contribute("blue");
    said.push(cast.bob.say(&session, message::MULTI_ROUND, contribution).await);

    let mut stream = runtime.client().subscribe(&session, 0).await.unwrap();

    assert_eq!(ids(&mut stream, 2).await, said);
}

#[tokio::test]
async fn a_flood_is_accepted_whole() {
    const COUNT: usize = 500;
    let runtime = RuntimeProcess::in_memory().await;
    let (cast, session) = (runtime.cast().await, SessionId::random());
    play::open_for_load(&cast, &session).await;

    play::contribute_many(&cast.alice, &session, COUNT, 16).await;

    let mut stream = runtime.client().subscribe(&session, 1).await.unwrap();
    let mut read = ids(&mut stream, COUNT).await;
    read.sort();
    read.dedup();
    assert_eq!(read.len(), COUNT);
}
