//! Adding artifacts to a run, whatever it is doing.
//!
//! **Invariant:** an artifact's id is the caller's, so asking twice adds it once; and a run never
//! has more than [`MAX_ARTIFACTS`], which its owner holds.

use control_plane_domain::RunId;
use control_plane_storage::Error;
use control_plane_storage::model::Artifact;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::{AskError, Engine};
use crate::run::ARTIFACT;

/// Most artifacts of a run.
pub const MAX_ARTIFACTS: usize = 100;

/// An artifact that somebody wants to add.
#[derive(Debug, Clone, PartialEq)]
pub struct NewArtifact {
    pub id: Uuid,
    pub kind: String,
    pub label: String,
    pub uri: Option<String>,
    pub inline: Option<Value>,
}

/// Why an artifact was not added.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error(transparent)]
    Ask(#[from] AskError),
    /// There is one of this id, and it is another.
    #[error("there is another artifact of this id")]
    Conflict,
    #[error("a run has at most {MAX_ARTIFACTS} artifacts")]
    TooMany,
}

impl From<Error> for ArtifactError {
    fn from(error: Error) -> Self {
        Self::Ask(error.into())
    }
}

impl Engine {
    /// Adds an artifact to a run, with its event; one that is there already is the answer.
    ///
    /// # Errors
    /// [`ArtifactError`]. When the owner is late, the artifact may still come.
    pub async fn artifact_add(
        &self,
        run_id: RunId,
        new: NewArtifact,
    ) -> Result<Artifact, ArtifactError> {
        let store = &self.0.store;
        if let Some(found) = store.artifact_get(run_id, new.id).await? {
            return if is_same(&found, &new) { Ok(found) } else { Err(ArtifactError::Conflict) };
        }
        if store.artifact_ids(run_id).await?.len() >= MAX_ARTIFACTS {
            return Err(ArtifactError::TooMany);
        }
        let NewArtifact { id, kind, label, uri, inline } = &new;
        let payload =
            json!({ "id": id, "kind": kind, "label": label, "uri": uri, "inline": inline });
        self.ask(run_id, ARTIFACT, id.to_string(), payload).await?;
        match store.artifact_get(run_id, new.id).await? {
            Some(found) if is_same(&found, &new) => Ok(found),
            Some(_other) => Err(ArtifactError::Conflict),
            // The last place went to somebody else.
            None => Err(ArtifactError::TooMany),
        }
    }
}

fn is_same(found: &Artifact, new: &NewArtifact) -> bool {
    let Artifact { kind, label, uri, inline, .. } = found;
    let inline = match (inline, &new.inline) {
        (Some(one), Some(other)) => is_same_json(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    inline && (kind, label, uri) == (&new.kind, &new.label, &new.uri)
}

/// A database may write a number in another way than it was given.
fn is_same_json(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same_json(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| {
                    other.get(key).is_some_and(|other| is_same_json(value, other))
                })
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        let one = json!({ "a": [1, 2.5, "x"], "b": { "c": 100 } });
        let other = json!({ "b": { "c": 100.0 }, "a": [1.0, 2.5, "x"] });
        assert!(is_same_json(&one, &other));
        for different in [
            json!({ "a": [1, 2.5, "x"] }),
            json!({ "a": [1, 2.5], "b": { "c": 100 } }),
            json!({ "a": [1, 2.5, "y"], "b": { "c": 100 } }),
            json!(null),
        ] {
            assert!(!is_same_json(&one, &different), "{different}");
        }
    }
}
