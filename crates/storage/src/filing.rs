//! Where a run is filed: in sight, or archived.
//!
//! **Invariant:** filing is not part of a run's state. It is written here, whoever owns the run, and
//! an append keeps what the row says of it, whatever its owner has in memory.

use control_plane_domain::{Run, RunId, Timestamp};
use serde_json::Value;

use crate::error::Result;
use crate::store::Store;

/// The tag of a run that is archived. It belongs to filing: [`Store::run_unarchive`] takes it away.
pub const ARCHIVED_TAG: &str = "archived";

impl Store {
    /// Archives a run: lists leave it out unless they are asked for it. One that is archived stays
    /// as it is.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], and those of the database.
    pub async fn run_archive(&self, id: RunId, now: Timestamp) -> Result<Run> {
        self.task(move |store: Self| async move { change!(store, filing::archive(id, now)) }).await
    }

    /// Takes a run out of the archive. One that is not in it stays as it is.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], and those of the database.
    pub async fn run_unarchive(&self, id: RunId, now: Timestamp) -> Result<Run> {
        self.task(move |store: Self| async move { change!(store, filing::unarchive(id, now)) })
            .await
    }
}

/// Stored tags with the mark, once.
pub(crate) fn marked(tags: Value) -> Value {
    if has_mark(&tags) {
        return tags;
    }
    let Value::Array(mut tags) = tags else { return tags };
    tags.push(Value::from(ARCHIVED_TAG));
    Value::Array(tags)
}

/// Stored tags without the mark.
pub(crate) fn unmarked(mut tags: Value) -> Value {
    if let Value::Array(tags) = &mut tags {
        tags.retain(|tag| tag.as_str() != Some(ARCHIVED_TAG));
    }
    tags
}

/// The tags that an owner writes; with the mark if, and only if, those that are `stored` have it.
/// The append of PostgreSQL says the same in SQL.
pub(crate) fn keeping_mark(tags: &[String], stored: &Value) -> Value {
    let tags = Value::from(tags.to_vec());
    match (has_mark(stored), has_mark(&tags)) {
        (true, false) => marked(tags),
        (false, true) => unmarked(tags),
        (true, true) | (false, false) => tags,
    }
}

fn has_mark(tags: &Value) -> bool {
    tags.as_array().is_some_and(|tags| tags.iter().any(|tag| tag.as_str() == Some(ARCHIVED_TAG)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_mark_is_there_once_and_goes_whole() {
        assert_eq!(marked(json!(["a"])), json!(["a", "archived"]));
        assert_eq!(marked(json!(["archived", "a"])), json!(["archived", "a"]));
        assert_eq!(unmarked(json!(["archived", "a", "archived"])), json!(["a"]));
    }

    #[test]
    fn of_the_mark_the_row_decides_and_of_the_rest_the_owner() {
        let texts = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>();
        for (owner, stored, kept) in [
            (&["a"][..], json!(["archived"]), json!(["a", "archived"])),
            (&["archived", "a"], json!(["b"]), json!(["a"])),
            (&["archived", "a"], json!(["archived"]), json!(["archived", "a"])),
            (&["a"], json!(["b"]), json!(["a"])),
        ] {
            assert_eq!(keeping_mark(&texts(owner), &stored), kept);
        }
    }
}
