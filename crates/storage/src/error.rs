//! What can go wrong between us and a database.

use std::fmt;

use control_plane_domain::RunId;
use control_plane_domain::run::IllegalTransition;

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    Run,
    Session,
    Event,
    Artifact,
    Projection,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Session => "session",
            Self::Event => "event",
            Self::Artifact => "artifact",
            Self::Projection => "projection",
        })
    }
}

/// The one error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{entity} {id} not found")]
    NotFound { entity: Entity, id: String },
    /// The session already has a run.
    #[error("session already exists: it is followed by run {run_id}")]
    SessionTaken { run_id: RunId },
    /// The key was used for another request.
    #[error("the idempotency key was used for another request, which made run {run_id}")]
    IdempotencyConflict { run_id: RunId },
    /// The run was loaded from a bundle: it is only read here.
    #[error("run {run_id} was imported and cannot be changed: it is the record of another server")]
    ReadOnly { run_id: RunId },
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    /// A row that our own code could not have written.
    #[error("stored {entity} {id} has an invalid {column}")]
    Corrupt { entity: Entity, id: String, column: &'static str },
    /// No connection was to be had, or it broke.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database refused the data itself; trying again is of no use.
    #[error("the database refused the data: {0}")]
    Refused(String),
    #[error("query failed")]
    Query(#[source] diesel::result::Error),
    /// The settings make no sense, or another process holds the database.
    #[error("{0}")]
    Config(String),
    #[error("migration failed: {0}")]
    Migration(String),
    /// The runtime is shutting down, or a bug of ours panicked.
    #[error("a task of the store ended early")]
    Task,
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn run_not_found(id: impl fmt::Display) -> Self {
        Self::NotFound { entity: Entity::Run, id: id.to_string() }
    }

    /// Whether the data may be the reason: the database answered, and its answer was no.
    ///
    /// Where several runs were written at once, each must then be tried apart from the others.
    pub(crate) fn may_be_the_data(&self) -> bool {
        use diesel::result::{DatabaseErrorKind, Error as Diesel};
        match self {
            Self::Refused(_)
            | Self::Query(Diesel::DatabaseError(DatabaseErrorKind::Unknown, _)) => true,
            Self::Query(_)
            | Self::Unavailable(_)
            | Self::Task
            | Self::NotFound { .. }
            | Self::SessionTaken { .. }
            | Self::IdempotencyConflict { .. }
            | Self::ReadOnly { .. }
            | Self::Transition(_)
            | Self::Corrupt { .. }
            | Self::Config(_)
            | Self::Migration(_) => false,
        }
    }

    /// Whether the same call may succeed later, without anybody changing the data.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Query(_) | Self::Task => true,
            Self::NotFound { .. }
            | Self::SessionTaken { .. }
            | Self::IdempotencyConflict { .. }
            | Self::ReadOnly { .. }
            | Self::Transition(_)
            | Self::Corrupt { .. }
            | Self::Refused(_)
            | Self::Config(_)
            | Self::Migration(_) => false,
        }
    }
}

impl From<diesel::result::Error> for Error {
    /// Sorts by what helps: another connection, other data, or nothing that we know of.
    #[expect(clippy::wildcard_enum_match_arm, reason = "diesel's error is non-exhaustive")]
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind as Kind, Error as Diesel};
        match error {
            Diesel::DatabaseError(
                Kind::ClosedConnection
                | Kind::UnableToSendCommand
                | Kind::ReadOnlyTransaction
                | Kind::SerializationFailure,
                information,
            ) => Self::Unavailable(information.message().to_owned()),
            // Why it could not be committed is what matters; the connection is given up anyway.
            Diesel::RollbackErrorOnCommit { commit_error, .. } => Self::from(*commit_error),
            Diesel::DatabaseError(
                Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::NotNullViolation
                | Kind::CheckViolation
                | Kind::ExclusionViolation
                | Kind::RestrictViolation,
                information,
            ) => Self::Refused(information.message().to_owned()),
            Diesel::SerializationError(source) | Diesel::QueryBuilderError(source) => {
                Self::Refused(source.to_string())
            }
            Diesel::DatabaseError(Kind::Unknown, ref information)
                if is_condition_text(information.message()) =>
            {
                Self::Unavailable(information.message().to_owned())
            }
            Diesel::DatabaseError(Kind::Unknown, ref information)
                if is_data_text(information.message()) =>
            {
                Self::Refused(information.message().to_owned())
            }
            Diesel::BrokenTransactionManager => {
                Self::Unavailable("the connection's transaction is broken".to_owned())
            }
            other => Self::Query(other),
        }
    }
}

/// The database is in a condition that passes, and the data has nothing to do with it.
///
/// diesel shows neither SQLSTATE nor SQLite's result code, so the text must do. A server that speaks
/// another language is told apart less well: its runs are retried where they could be parked.
fn is_condition_text(message: &str) -> bool {
    const TEXTS: &[&str] = &[
        // PostgreSQL, class 08 and 57P, and 25006.
        "connection closed",
        "terminating connection",
        "the database system is",
        "server closed the connection",
        "Connection reset",
        "Broken pipe",
        "read-only transaction",
        // Class 53: out of something, of which `out of memory` is SQLite's NOMEM, too.
        "too many connections",
        "too many clients",
        "remaining connection slots",
        "No space left on device",
        "could not extend file",
        "could not write",
        "out of memory",
        "out of shared memory",
        // 57014, 55P03, 40P01, 58030: canceled, locked, deadlocked, and a disk with faults.
        "canceling statement",
        "could not obtain lock",
        "deadlock detected",
        "Input/output error",
        // SQLite: BUSY, LOCKED, PROTOCOL, FULL, READONLY, IOERR, CANTOPEN.
        "locking protocol",
        "database is locked",
        "database table is locked",
        "database or disk is full",
        "attempt to write a readonly database",
        "disk I/O error",
        "unable to open database file",
    ];
    TEXTS.iter().any(|text| message.contains(text))
}

/// Data that no retry makes acceptable: PostgreSQL's class 22 and 54, SQLite's TOOBIG and MISMATCH.
fn is_data_text(message: &str) -> bool {
    const TEXTS: &[&str] = &[
        "invalid byte sequence",
        "unsupported Unicode escape",
        "value too long",
        "out of range",
        "invalid input syntax",
        "index row size",
        "index row requires",
        "invalid memory alloc request",
        "string or blob too big",
        "datatype mismatch",
    ];
    TEXTS.iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind as Kind, Error as Diesel};

    use super::*;

    fn of(kind: Kind, message: &str) -> Error {
        Diesel::DatabaseError(kind, Box::new(message.to_owned())).into()
    }

    #[test]
    fn a_database_that_is_away_or_full_may_come_back() {
        for message in [
            "terminating connection due to administrator command",
            "the database system is shutting down",
            "sorry, too many clients already",
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "could not extend file \"base/1/2\": No space left on device",
            "could not extend file \"base/1/2\": wrote only 4096 of 8192 bytes at block 7",
            "could not write to file \"pg_wal/xlogtemp.12\": No space left on device",
            "out of shared memory",
            "canceling statement due to statement timeout",
            "canceling statement due to conflict with recovery",
            "deadlock detected",
            "database is locked",
            "database or disk is full",
            "attempt to write a readonly database",
            "disk I/O error",
            "unable to open database file",
        ] {
            let error = of(Kind::Unknown, message);
            assert!(matches!(error, Error::Unavailable(_)), "{message}");
            assert!(error.is_transient() && !error.may_be_the_data());
        }
        for kind in [Kind::UnableToSendCommand, Kind::SerializationFailure] {
            assert!(matches!(of(kind, "x"), Error::Unavailable(_)));
        }
    }

    #[test]
    fn a_commit_that_cannot_be_rolled_back_failed_for_its_own_reason() {
        let full: Box<dyn DatabaseErrorInformation + Send + Sync> =
            Box::new("database or disk is full".to_owned());
        let error: Error = Diesel::RollbackErrorOnCommit {
            rollback_error: Box::new(Diesel::BrokenTransactionManager),
            commit_error: Box::new(Diesel::DatabaseError(Kind::Unknown, full)),
        }
        .into();

        assert!(matches!(&error, Error::Unavailable(why) if why.contains("full")), "{error:?}");
    }

    #[test]
    fn data_that_a_database_refuses_is_not_tried_again() {
        for message in [
            "unsupported Unicode escape sequence",
            "invalid byte sequence for encoding \"UTF8\": 0x00",
            "timestamp out of range",
            "index row size 2824 exceeds btree version 4 maximum 2704 for index \"i\"",
            "string or blob too big",
        ] {
            let error = of(Kind::Unknown, message);
            assert!(matches!(error, Error::Refused(_)), "{message}");
            assert!(!error.is_transient() && error.may_be_the_data());
        }
        assert!(matches!(of(Kind::UniqueViolation, "x"), Error::Refused(_)));
    }

    #[test]
    fn an_answer_that_nobody_knows_is_tried_again_and_apart() {
        for message in ["database disk image is malformed", "nouvelle erreur"] {
            let error = of(Kind::Unknown, message);
            assert!(matches!(error, Error::Query(_)), "{message}");
            assert!(error.is_transient() && error.may_be_the_data());
        }
        assert!(!of(Kind::SerializationFailure, "x").may_be_the_data());
    }
}
