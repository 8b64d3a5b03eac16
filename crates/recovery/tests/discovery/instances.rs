//! Two instances on one database: one of them makes the runs.

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, wait_until};

use super::support::{Rig, descriptor};
use super::{discovering, ended, opened};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_make_one_run_of_each_session_and_one_goes_on_alone() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::with_config(Kind::Postgres, runtime.client(), discovering());
    let second = rig.second();
    let mut sessions: Vec<(SessionId, Vec<String>)> = Vec::new();
    for _ in 0..20 {
        let session = SessionId::random();
        let accepted = opened(&cast, &session).await;
        sessions.push((session, accepted));
    }
    for (session, _) in &sessions {
        let run = rig.finds(session).await;
        rig.reaches(run, RunState::Running).await;
    }
    assert_eq!(rig.count_runs().await, 20);
    let follows = async || rig.engine.following() + second.engine.following();
    wait_until(DEADLINE, async || follows().await == 20).await;
    // One of them found them all.
    let (mine, theirs) = (rig.engine.following(), second.engine.following());
    assert!(mine == 20 || theirs == 20, "{mine} {theirs}");

    // The one that found them goes, and the other one takes over, with what it has never seen.
    let (rig, second) = if mine == 20 {
        let (database, client, config) = rig.stop().await;
        // A third one, whose turn may come as well.
        (Rig::resume(database, client, config), Some(second))
    } else {
        second.stop().await;
        (rig, None)
    };
    let session = SessionId::random();
    sessions.push((session.clone(), opened(&cast, &session).await));
    for (session, accepted) in &mut sessions {
        let run = rig.finds(session).await;
        rig.reaches(run, RunState::Running).await;
        ended(&cast, session, accepted).await;
        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, accepted).await;
    }
    if let Some(second) = second {
        second.stop().await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_without_the_duty_adopts_and_follows_what_is_posted_to_it() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::with_config(Kind::Postgres, runtime.client(), discovering());
    let first = SessionId::random();
    opened(&cast, &first).await;
    let found = rig.finds(&first).await;
    rig.reaches(found, RunState::Running).await;
    let second = rig.second();

    // Its run is followed by the first; the request comes to the second.
    let launched = second.engine.launch(descriptor(&first, message::DECISION)).await.unwrap();
    assert_eq!(launched.run_id, found);
    wait_until(DEADLINE, async || {
        let story = rig.story(found).await;
        story.iter().filter(|name| *name == "session.bound").count() == 2
    })
    .await;
    assert_eq!(rig.store.run_get(found).await.unwrap().source_kind, None);

    // And the watch of the second still tells its own runs what becomes of their sessions.
    let own = SessionId::random();
    let run = second.engine.launch(descriptor(&own, message::DECISION)).await.unwrap().run_id;
    opened(&cast, &own).await;
    rig.reaches(run, RunState::Running).await;
    cast.alice.suspend(&own, "lunch").await;
    rig.reaches(run, RunState::Suspended).await;
    assert_eq!((rig.engine.following(), second.engine.following()), (1, 1));
    second.stop().await;
    rig.stop().await;
}
