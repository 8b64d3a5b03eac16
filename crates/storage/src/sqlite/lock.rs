//! The file beside a SQLite database that says which process has it.
//!
//! **Invariant:** one store in all processes holds it. It is free when the store is dropped, and
//! when the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// [`Error::Config`] when another process has it, or the file cannot be made.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let shown = path.display();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|fault| {
                Error::Config(format!("cannot make the folder of {shown}: {fault}"))
            })?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&name).map_err(
                |fault| Error::Config(format!("cannot open the lock of {shown}: {fault}")),
            )?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Config(format!(
                "another process has the database {shown} open; SQLite serves one process at a time"
            ))),
            Err(TryLockError::Error(fault)) => {
                Err(Error::Config(format!("cannot lock {shown}: {fault}")))
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: while this process starts another, that one has it too.
        if let Err(fault) = self.0.unlock() {
            tracing::debug!(error = %fault, "Could not unlock a database");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_when_it_is_dropped_even_if_a_child_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let lock = Lock::take(&path).unwrap();
        let of_a_child = lock.0.try_clone().unwrap();

        let second = Lock::take(&path);
        drop(lock);
        let third = Lock::take(&path);

        assert!(matches!(second, Err(Error::Config(_))));
        assert!(third.is_ok());
        drop(of_a_child);
    }
}
