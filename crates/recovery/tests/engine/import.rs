//! A run of another server: what is imported is what was exported, and nobody follows it.

use std::fs::File;
use std::io::Write;

use control_plane_domain::{Clock, RunId, RunState, SystemClock};
use control_plane_insights::bundle::export::{Ask, Export};
use control_plane_insights::bundle::verify::{Options, verify};
use control_plane_insights::bundle::write::Shape;
use control_plane_recovery::{AskError, ImportError, Imported, LifecycleError, import};
use control_plane_storage::model::Deleted;
use control_plane_storage::{Error, Store};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use serde_json::json;

use super::Talk;
use super::support::{Rig, config};

async fn export(store: &Store, run: RunId, shape: Shape) -> Vec<u8> {
    let ask = Ask { raw: true, ..Ask::events(shape) };
    let log_id = store.log_id().await.unwrap();
    let mut export = Export::open(store, run, ask, &log_id, SystemClock.now()).await.unwrap();
    let mut bundle = Vec::new();
    while let Some(bytes) = export.next().await.unwrap() {
        bundle.extend_from_slice(&bytes);
    }
    bundle
}

fn file(bundle: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bundle).unwrap();
    file
}

async fn import_into(store: &Store, bundle: &[u8]) -> Result<Imported, ImportError> {
    import(store, file(bundle), None, SystemClock.now()).await
}

/// The lines of a bundle in lines that are the record, and the sums of everything else.
fn record(bundle: &[u8]) -> (Vec<String>, serde_json::Value) {
    let text = std::str::from_utf8(bundle).unwrap();
    let is_record = |line: &&str| {
        line.starts_with(r#"{"kind":"canonical_event""#)
            || line.starts_with(r#"{"kind":"raw_event""#)
    };
    let manifest = text.lines().find(|line| line.starts_with(r#"{"kind":"manifest""#)).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
    for of_the_export in ["logId", "sha256"] {
        manifest.as_object_mut().unwrap().remove(of_the_export);
    }
    manifest["parts"].as_object_mut().unwrap().remove("exportedAt");
    (text.lines().filter(is_record).map(str::to_owned).collect(), manifest)
}

fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Sqlite => Kind::Postgres,
        Kind::Postgres => Kind::Sqlite,
    }
}

/// A run that is over and one that goes on, with their bundles in lines.
struct Recorded {
    over: (RunId, Vec<u8>),
    running: (RunId, Vec<u8>),
}

async fn recorded(kind: Kind, runtime: &RuntimeProcess) -> Recorded {
    let cast = runtime.cast().await;
    let rig = Rig::start(kind, runtime.client());
    let (mut over, running) = (Talk::open(&cast).await, Talk::open(&cast).await);
    let ids = [
        rig.post(&over.session, message::DECISION).await,
        rig.post(&running.session, message::DECISION).await,
    ];
    let artifact =
        json!({ "id": RunId::random(), "kind": "report", "label": "a", "inline": { "n": 1.5 } });
    rig.engine.ask(ids[0], "artifact", "a".to_owned(), artifact).await.unwrap();
    over.end(&cast).await;
    rig.reaches(ids[0], RunState::Completed).await;
    rig.has_recorded(ids[1], 2).await;
    let recorded = Recorded {
        over: (ids[0], export(&rig.store, ids[0], Shape::Lines).await),
        running: (ids[1], export(&rig.store, ids[1], Shape::Lines).await),
    };
    rig.stop().await;
    recorded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_again_is_what_was_imported() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let Recorded { over: (run, bundle), .. } = recorded(kind, &runtime).await;
        let database = TestDb::new(other(kind));
        let store = database.store();

        let imported = import_into(&store, &bundle).await.unwrap();
        let again = export(&store, run, Shape::Lines).await;

        assert_eq!(imported.run.id, run);
        assert_eq!(imported.report.faults(), Vec::<String>::new());
        assert_eq!(record(&again), record(&bundle));
        let report = verify(&again[..], &Options::default()).unwrap().report;
        assert!(report.sound, "{report}");
        assert_eq!(report.raw_events, 4);
        assert_eq!(store.run_get(run).await.unwrap(), imported.run);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_is_imported_as_well_as_lines() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    talk.end(&cast).await;
    rig.reaches(run, RunState::Completed).await;
    let bundle = export(&rig.store, run, Shape::Json).await;
    let database = TestDb::sqlite();
    let store = database.store();

    import_into(&store, &bundle).await.unwrap();

    let [was, is] = [&rig.store, &store].map(async |store| export(store, run, Shape::Lines).await);
    let (was, is) = futures_util::join!(was, is);
    assert_eq!(record(&is), record(&was));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_leaves_imported_runs_alone_whatever_they_were() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let Recorded { over, running } = recorded(kind, &runtime).await;
        let database = TestDb::new(other(kind));
        let store = database.store();
        for (_, bundle) in [&over, &running] {
            import_into(&store, bundle).await.unwrap();
        }
        let before = [
            (store.run_get(over.0).await.unwrap(), store.run_head(over.0).await.unwrap()),
            (store.run_get(running.0).await.unwrap(), store.run_head(running.0).await.unwrap()),
        ];
        drop(store);

        // It recovers runs and discovers sessions, among them those of the imported runs.
        let finds = control_plane_recovery::Config { discovery_enabled: true, ..config() };
        let rig = Rig::resume(database, std::sync::Arc::new(runtime.client()), finds);
        let cast = runtime.cast().await;
        let mut own = Talk::open(&cast).await;
        let found = rig.finds(&own.session).await;
        own.end(&cast).await;
        rig.reaches(found, RunState::Completed).await;

        assert_eq!(rig.count_runs().await, 3);
        for (run, head) in before {
            assert_eq!(rig.store.run_get(run.id).await.unwrap(), run);
            assert_eq!(rig.store.run_head(run.id).await.unwrap(), head);
            rig.log_is_sound(run.id).await;
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_changes_an_imported_run_but_it_can_be_deleted() {
    let runtime = RuntimeProcess::in_memory().await;
    let Recorded { running: (run, bundle), .. } = recorded(Kind::Sqlite, &runtime).await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    import_into(&rig.store, &bundle).await.unwrap();

    let suspended = rig.engine.suspend(run, None).await;
    let resumed = rig.engine.resume(run, None).await;
    let asked = rig.engine.ask(run, "artifact", "a".to_owned(), json!({})).await;
    let posted = rig.store.run_get(run).await.unwrap().session_id.unwrap();
    let posted = rig.engine.launch(super::support::descriptor(&posted, message::DECISION)).await;

    for refused in [suspended, resumed] {
        let is = matches!(refused, Err(LifecycleError::Storage(Error::ReadOnly { .. })));
        assert!(is, "{refused:?}");
    }
    assert!(matches!(asked, Err(AskError::Storage(Error::ReadOnly { .. }))), "{asked:?}");
    let is = matches!(&posted, Err(control_plane_recovery::LaunchError::SessionTaken { run_id }) if *run_id == run);
    assert!(is, "{posted:?}");
    assert_eq!(rig.store.run_get(run).await.unwrap().state, RunState::Running);
    let deleted = rig.store.run_delete(run, SystemClock.now()).await.unwrap();
    assert_eq!(deleted, Deleted::Done);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_damaged_partial_or_there_already_is_refused() {
    let runtime = RuntimeProcess::in_memory().await;
    let Recorded { over: (run, bundle), .. } = recorded(Kind::Sqlite, &runtime).await;
    let database = TestDb::sqlite();
    let store = database.store();
    let text = String::from_utf8(bundle.clone()).unwrap();
    let damaged = text.replacen(r#""vote":"APPROVE""#, r#""vote":"APPROVF""#, 1);
    let lines = text.lines().filter(|line| !line.contains(r#""kind":"end""#));
    let cut = lines.fold(String::new(), |cut, line| cut + line + "\n");

    let changed = import_into(&store, damaged.as_bytes()).await.unwrap_err().to_string();
    let cut = import_into(&store, cut.as_bytes()).await.unwrap_err().to_string();
    let large = import(&store, file(&bundle), Some(1000), SystemClock.now()).await;
    let absent = store.run_get(run).await;
    import_into(&store, &bundle).await.unwrap();
    let again = import_into(&store, &bundle).await;

    assert!(changed.contains("canonicalEvents[") && changed.contains("was changed"), "{changed}");
    assert!(cut.contains("the end line"), "{cut}");
    assert!(matches!(large, Err(ImportError::TooLarge(1000))), "{large:?}");
    assert!(matches!(absent, Err(Error::NotFound { .. })));
    let taken =
        matches!(again, Err(ImportError::Storage(Error::SessionTaken { run_id })) if run_id == run);
    assert!(taken);
}
