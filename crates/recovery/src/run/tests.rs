//! What a run that is followed and quiet takes, apart from its stream and its text.

use super::*;

/// Most bytes of a run's own: its task, its ledger, and where the task stands.
const MOST: usize = 8 * 1024;

fn of_task<'a, 'b: 'a, F>(_: impl FnOnce(&'a mut Task<'b>) -> F) -> usize {
    size_of::<F>()
}

fn of_run<F>(_: impl FnOnce(Arc<Context>, Lease, Origin) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn what_a_run_s_task_keeps_is_small() {
    let (outer, task, inner) = (of_run(supervise), size_of::<Task<'_>>(), of_task(Task::run));
    assert!(outer + task + inner <= MOST, "{outer} and {task} and {inner} bytes");
}
