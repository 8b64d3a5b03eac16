//! Adoption: a run that discovery made becomes that of whoever posts its session.
//!
//! **Invariant:** who gets the run is decided in the database, once. What the run becomes by it is
//! told to its owner through the inbox, so that it is in the log like everything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use control_plane_domain::descriptor::SessionRequest;
use control_plane_domain::{Run, RunDescriptor, RunId, Session};
use control_plane_storage::model::{Created, Lease, NewRun};
use control_plane_storage::{Adopted, Adoption, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::Context;
use crate::launch::LaunchError;

/// The kind of an inbox item that is an adoption, and its key: a run has one at most.
pub(crate) const ADOPTION: &str = "adoption";

/// How often a run may turn out to be another one's, or gone, before that is the answer.
const ATTEMPTS: u32 = 5;

/// How a request to launch was met.
pub(crate) enum Recorded {
    New(Lease),
    /// The idempotency key had made this run before.
    Existing(Box<Run>),
    /// The run of this id was discovered before, and is the caller's now.
    Adopted(RunId),
}

/// An adoption as it lies in an inbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Posted {
    request: Value,
    request_hash: String,
}

impl Posted {
    /// What was posted, and its hash; `None` for a request that only another version understands.
    pub(crate) fn read(self) -> Option<(RunDescriptor, String)> {
        Some((RunDescriptor::parse(&self.request).ok()?, self.request_hash))
    }
}

/// Records a run, or finds the one that is the caller's already or can become it.
pub(crate) async fn record(context: &Arc<Context>, new: NewRun) -> Result<Recorded, LaunchError> {
    let mut refused = None;
    for _attempt in 0..ATTEMPTS {
        let run_id = match context.store.run_create(new.clone()).await {
            Ok(Created::New(lease)) => return Ok(Recorded::New(lease)),
            Ok(Created::Existing(run)) => return Ok(Recorded::Existing(run)),
            Err(Error::SessionTaken { run_id }) => run_id,
            Err(fault) => return Err(fault.into()),
        };
        // Twice the same answer is final: it is somebody else's.
        if refused == Some(run_id) {
            break;
        }
        match context.store.run_adopt(run_id, adoption(&new, context.clock.now())).await {
            Ok(Adopted::Done) => return Ok(Recorded::Adopted(run_id)),
            // Perhaps by an earlier try of the same request, which its key tells.
            Ok(Adopted::Taken) | Err(Error::Refused(_)) => refused = Some(run_id),
            // The next try finds the session free.
            Ok(Adopted::Released) | Err(Error::NotFound { .. }) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    match refused {
        Some(run_id) => Err(LaunchError::SessionTaken { run_id }),
        None => Err(Error::Unavailable("the session's run comes and goes".to_owned()).into()),
    }
}

fn adoption(new: &NewRun, now: control_plane_domain::Timestamp) -> Adoption {
    let request = new.run.metadata.get("executionRequest").cloned().unwrap_or_default();
    let request_hash = new.run.request_hash.clone().unwrap_or_default();
    let posted = Posted { request, request_hash: request_hash.clone() };
    Adoption {
        request_hash,
        idempotency_key: new.run.idempotency_key.clone(),
        kind: ADOPTION,
        dedup_key: ADOPTION.to_owned(),
        payload: serde_json::to_value(posted).unwrap_or_default(),
        now,
    }
}

/// Where a request and the session disagree. What a request leaves open is no difference.
pub(crate) fn differences(request: &SessionRequest, session: &Session) -> Map<String, Value> {
    let mut differences = Map::new();
    let mut note = |field: &str, requested: Value, actual: Value| {
        differences.insert(field.to_owned(), json!({ "requested": requested, "session": actual }));
    };
    let policy = request.policy_version.as_deref().unwrap_or_default();
    for (field, requested, actual) in [
        ("modeName", request.mode_name.as_str(), session.mode_name.as_str()),
        ("modeVersion", &request.mode_version, &session.mode_version),
        ("configurationVersion", &request.configuration_version, &session.configuration_version),
        ("policyVersion", policy, &session.policy_version),
    ] {
        if !requested.is_empty() && !actual.is_empty() && requested != actual {
            note(field, requested.into(), actual.into());
        }
    }
    let requested: BTreeSet<&str> =
        request.participants.iter().map(|participant| participant.id.as_str()).collect();
    let actual: BTreeSet<&str> = session.participants.iter().map(String::as_str).collect();
    if !requested.is_empty() && !actual.is_empty() && requested != actual {
        note("participants", json!(requested), json!(actual));
    }
    differences
}

#[cfg(test)]
mod tests {
    use control_plane_domain::time::from_unix_ms;

    use super::*;
    use crate::launch;

    fn descriptor(participants: &[&str], mode: &str) -> RunDescriptor {
        let participants: Vec<Value> = participants.iter().map(|id| json!({ "id": id })).collect();
        RunDescriptor::parse(&json!({
            "mode": "live",
            "runtime": { "kind": "rust" },
            "session": {
                "sessionId": "abcdefghijklmnopqrstuv",
                "modeName": mode, "modeVersion": "", "configurationVersion": "c",
                "ttlMs": 1000, "participants": participants,
            },
            "execution": { "tags": ["t"], "idempotencyKey": "k" },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_posted_is_read_from_the_inbox_as_it_was() {
        let asked = descriptor(&["a"], "m");
        let new = launch::new_run(&asked, None, from_unix_ms(1).unwrap());

        let adoption = adoption(&new, from_unix_ms(2).unwrap());

        let posted: Posted = serde_json::from_value(adoption.payload).unwrap();
        assert_eq!(posted.read(), Some((asked, new.run.request_hash.unwrap())));
        assert_eq!(adoption.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn a_difference_names_both_sides_and_silence_is_none() {
        let now = from_unix_ms(1).unwrap();
        let (_, session) = launch::records(&descriptor(&["a", "b"], "m"), now);

        let none = differences(&descriptor(&["b", "a"], "m").session, &session);
        let some = differences(&descriptor(&["a", "c"], "n").session, &session);

        assert_eq!(none, Map::new());
        assert_eq!(
            Value::Object(some),
            json!({
                "modeName": { "requested": "n", "session": "m" },
                "participants": { "requested": ["a", "c"], "session": ["a", "b"] },
            })
        );
    }
}
