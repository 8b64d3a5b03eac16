//! How many files, and so connections, this process may have open.
//!
//! **Invariant:** it is raised to what the system grants without asking, and never lowered: the usual
//! 1024 of a shell or a service is there for programs that cannot count further, and we can.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than the most connections that are ever taken, and what else there is.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let Some(wanted) = wanted(&limit) else { return };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => tracing::debug!("Up to {wanted} files may be open"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "The limit of open files could not be raised"
        ),
    }
}

/// The soft limit to ask for, if it is another one. `None` in a limit is no limit.
fn wanted(limit: &Rlimit) -> Option<u64> {
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    limit.current.filter(|current| *current < most).map(|_| most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_goes_as_far_as_the_hard_one_and_never_down() {
        for (current, maximum, expected) in [
            (Some(1024), Some(4096), Some(4096)),
            (Some(1024), Some(1_048_576), Some(ENOUGH)),
            (Some(1024), None, Some(ENOUGH)),
            (Some(4096), Some(4096), None),
            (Some(100_000), Some(200_000), None),
            (None, None, None),
        ] {
            assert_eq!(wanted(&Rlimit { current, maximum }), expected, "{current:?} {maximum:?}");
        }
    }
}
