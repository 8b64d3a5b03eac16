//! Whether a record is whole, as the API says it.

use std::sync::Arc;

use control_plane_domain::EventType;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::{DEADLINE, wait_for};
use serde_json::{Value, json};

use crate::support::{Api, Journal, Setup};

async fn on(kind: Kind) -> Api {
    Api::set(Setup { database: Arc::new(TestDb::new(kind)), ..Setup::default() }).await
}

fn evidence<'a>(answer: &'a Value, kind: &str) -> &'a Value {
    answer["evidence"].as_array().unwrap().iter().find(|one| one["kind"] == kind).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_is_unknown_by_either_of_its_ids() {
    for kind in Kind::ALL {
        let api = on(kind).await;
        let mut journal = Journal::create(&api.store).await;
        journal.append(&[EventType::MessageReceived]).await;
        for id in [journal.id().to_string(), journal.session_id()] {
            let (status, answer) = api.get(&format!("/runs/{id}/completeness")).await;

            assert_eq!((status, &answer["status"]), (200, &json!("unknown")), "{answer:#}");
            assert_eq!(answer["runId"], journal.id().to_string());
            assert_eq!(answer["sessionId"], journal.session_id());
            assert_eq!(answer["lastSeq"], 2);
            assert_eq!(evidence(&answer, "log")["result"], "supports");
            assert_eq!(evidence(&answer, "end")["result"], "says_nothing");
            assert!(answer["checkedAt"].as_str().unwrap().ends_with('Z'));
            assert!(answer["lacking"].as_array().unwrap().len() > 1, "{answer:#}");
        }
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_log_is_a_range_with_its_ordinals() {
    for kind in Kind::ALL {
        let api = on(kind).await;
        let mut journal = Journal::create(&api.store).await;
        journal.append(&[EventType::SessionStreamGap]).await;
        journal.complete().await;

        let (_, answer) = api.get(&format!("/runs/{}/completeness", journal.id())).await;

        assert_eq!((&answer["status"], &answer["history"]), (&json!("gap"), &json!("gap")));
        let range = json!({
            "kind": "envelopes", "fromOrdinal": 2, "toOrdinal": 4, "missing": 3, "reason": "UNKNOWN",
        });
        assert_eq!(answer["ranges"], json!([range]), "{answer:#}");
        assert!(answer["summary"].as_str().unwrap().contains("envelopes 2 to 4"), "{answer:#}");
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_is_asked_when_that_is_wanted_and_its_silence_is_no_error() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let path = format!("/runs/{}/completeness", journal.id());

    let (status, answer) = api.get(&format!("{path}?ask=true")).await;
    let (refused, fault) = api.get(&format!("{path}?ask=perhaps")).await;
    let (missing, unknown) =
        api.get("/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/completeness").await;

    let sentence = evidence(&answer, "activity")["sentence"].as_str().unwrap();
    assert_eq!((status, sentence.ends_with("not here")), (200, true), "{sentence}");
    assert_eq!((refused, &fault["errorCode"]), (400, &json!("VALIDATION_ERROR")));
    assert_eq!((missing, &unknown["errorCode"]), (404, &json!("RUN_NOT_FOUND")));
    // The stand-in takes signals from the start, so in a moment those are known to be all there.
    let ask = async || api.get(&path).await.1;
    let heard = wait_for(DEADLINE, ask, |answer| answer["signals"] != "unknown").await;
    assert_eq!(heard["signals"], "complete", "{heard:#}");
    api.stop().await;
}
