//! The table of moves, and that nothing gets around it.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::time::from_unix_ms;

fn run(state: RunState) -> Run {
    let now = from_unix_ms(0).unwrap();
    Run {
        id: RunId(Uuid::nil()),
        state,
        mode: RunMode::Live,
        runtime_kind: "rust".into(),
        runtime_version: None,
        session_id: None,
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: None,
        tags: vec![],
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    }
}

#[test]
fn the_table_of_moves_is_the_specified_one() {
    use RunState::*;
    let allowed = [
        (Queued, vec![Starting, Failed, Cancelled]),
        (Starting, vec![BindingSession, Failed, Cancelled]),
        (BindingSession, vec![Running, Failed, Cancelled]),
        (Running, vec![Suspended, Completed, Failed, Cancelled]),
        (Suspended, vec![Running, Completed, Failed, Cancelled]),
        (Completed, vec![]),
        (Failed, vec![]),
        (Cancelled, vec![]),
    ];
    for (from, targets) in allowed {
        for to in RunState::ALL {
            assert_eq!(from.may_become(to), targets.contains(&to), "{from} to {to}");
        }
    }
}

fn any_state() -> impl Strategy<Value = RunState> {
    proptest::sample::select(RunState::ALL.to_vec())
}

proptest! {
    /// However it is pushed, a run stays where it ended, and `ended_at` is set exactly then.
    #[test]
    fn a_terminal_state_is_never_left(moves in proptest::collection::vec(any_state(), 0..40)) {
        let mut run = run(RunState::Queued);
        let mut ended: Option<(RunState, Option<Timestamp>)> = None;
        for (index, to) in moves.into_iter().enumerate() {
            let now = from_unix_ms(i64::try_from(index).unwrap()).unwrap();
            let before = run.state;
            let moved = run.advance(to, now);
            prop_assert_eq!(moved.is_ok(), before.may_become(to));
            prop_assert_eq!(run.state, if moved.is_ok() { to } else { before });
            if let Some((state, at)) = ended {
                prop_assert_eq!(run.state, state);
                prop_assert_eq!(run.ended_at, at);
            } else if run.state.is_terminal() {
                prop_assert_eq!(run.ended_at, Some(now));
                ended = Some((run.state, run.ended_at));
            }
            prop_assert_eq!(run.ended_at.is_some(), run.state.is_terminal());
        }
    }

    #[test]
    fn a_state_reads_back_from_its_name(state in any_state()) {
        prop_assert_eq!(state.as_str().parse::<RunState>(), Ok(state));
    }
}
