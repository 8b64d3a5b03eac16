//! What a run that is followed and quiet takes, apart from its stream and its text.

use super::*;

fn of_task<'a, 'b: 'a, F>(_: impl FnOnce(&'a mut Task<'b>) -> F) -> usize {
    size_of::<F>()
}

fn of_run<F>(_: impl FnOnce(Arc<Context>, Lease, Origin) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_quiet_run_s_task_is_small() {
    let run = of_task(Task::run);
    let attach = of_task(Task::attach);
    let find = of_task(Task::find);
    let gone = of_task(Task::gone);
    let whole = of_run(supervise);
    assert!(
        run + whole < 1,
        "run {run} attach {attach} find {find} gone {gone} supervise {whole} ledger {} session info {}",
        size_of::<Ledger>(),
        size_of::<control_plane_domain::session::SessionInfo>()
    );
}
