//! A table of what it does, and what it never does whatever comes.

use proptest::prelude::*;

use super::*;

const THRESHOLD: u32 = 3;
const COOL_DOWN: Duration = Duration::from_secs(30);

fn breaker() -> (Breaker, Instant) {
    (Breaker::new(THRESHOLD, COOL_DOWN), Instant::now())
}

fn granted(breaker: &mut Breaker, now: Instant) -> Permit {
    match breaker.admit(now) {
        Admission::Granted(permit, _) => permit,
        Admission::Refused(wait) => panic!("refused for {wait:?}"),
    }
}

fn refused(breaker: &mut Breaker, now: Instant) -> Duration {
    match breaker.admit(now) {
        Admission::Granted(..) => panic!("granted"),
        Admission::Refused(wait) => wait,
    }
}

fn fail(breaker: &mut Breaker, now: Instant) -> Option<Change> {
    let permit = granted(breaker, now);
    breaker.settle(permit, Outcome::Failed, now)
}

fn open() -> (Breaker, Instant) {
    let (mut breaker, now) = breaker();
    for _ in 0..THRESHOLD {
        fail(&mut breaker, now);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    (breaker, now)
}

#[test]
fn failures_in_a_row_open_it_and_others_do_not() {
    let (mut breaker, now) = breaker();
    for _ in 0..10 {
        assert_eq!(fail(&mut breaker, now), None);
        assert_eq!(fail(&mut breaker, now), None);
        let permit = granted(&mut breaker, now);
        assert_eq!(breaker.settle(permit, Outcome::Answered, now), None);
    }
    assert_eq!(fail(&mut breaker, now), None);
    let permit = granted(&mut breaker, now);
    assert_eq!(breaker.settle(permit, Outcome::Abandoned, now), None, "that is no answer");
    assert_eq!(fail(&mut breaker, now), None);

    let change = fail(&mut breaker, now).unwrap();

    assert_eq!((change.state, &*change.reason), (BreakerState::Open, "3 consecutive failures"));
    let later = now + Duration::from_secs(10);
    assert_eq!(refused(&mut breaker, later), Duration::from_secs(20));
}

#[test]
fn after_the_cool_down_one_call_decides() {
    for (outcome, becomes) in
        [(Outcome::Answered, BreakerState::Closed), (Outcome::Failed, BreakerState::Open)]
    {
        let (mut breaker, now) = open();
        let later = now + COOL_DOWN;

        let probe = granted(&mut breaker, later);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(refused(&mut breaker, later), WHILE_PROBING);
        let change = breaker.settle(probe, outcome, later).unwrap();

        assert_eq!((change.state, breaker.state()), (becomes, becomes));
    }
}

#[test]
fn a_probe_that_fails_opens_it_for_as_long_again() {
    let (mut breaker, now) = open();
    let later = now + COOL_DOWN;
    fail(&mut breaker, later);
    assert_eq!(refused(&mut breaker, later), COOL_DOWN);
}

#[test]
fn a_probe_that_nobody_waits_for_gives_its_place_to_the_next() {
    let (mut breaker, now) = open();
    let later = now + COOL_DOWN;
    let probe = granted(&mut breaker, later);

    assert_eq!(breaker.settle(probe, Outcome::Abandoned, later), None);

    let next = granted(&mut breaker, later);
    let change = breaker.settle(next, Outcome::Answered, later).unwrap();
    assert_eq!(change.state, BreakerState::Closed);
}

#[test]
fn a_call_of_before_the_opening_closes_nothing_and_opens_nothing() {
    let (mut breaker, now) = breaker();
    let slow: Vec<Permit> = (0..5).map(|_| granted(&mut breaker, now)).collect();
    for _ in 0..THRESHOLD {
        fail(&mut breaker, now);
    }

    assert_eq!(breaker.settle(slow[0], Outcome::Answered, now), None);
    let probe = granted(&mut breaker, now + COOL_DOWN);
    assert_eq!(breaker.settle(slow[1], Outcome::Answered, now), None);
    assert_eq!(breaker.settle(slow[2], Outcome::Abandoned, now), None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    refused(&mut breaker, now + COOL_DOWN);
    breaker.settle(probe, Outcome::Answered, now);
    for permit in &slow[3..] {
        assert_eq!(breaker.settle(*permit, Outcome::Failed, now), None);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_runtime_that_is_heard_of_is_tried_at_once() {
    let (mut breaker, now) = open();
    assert_eq!(breaker.reached().unwrap().state, BreakerState::HalfOpen);
    assert_eq!(breaker.reached(), None);

    let probe = granted(&mut breaker, now);

    refused(&mut breaker, now);
    breaker.settle(probe, Outcome::Answered, now);
    assert_eq!((breaker.state(), breaker.reached()), (BreakerState::Closed, None));
}

#[test]
fn a_reset_closes_it_and_forgets_its_failures() {
    let (mut breaker, now) = open();
    let change = breaker.reset().unwrap();
    assert_eq!((change.state, &*change.reason), (BreakerState::Closed, "manual reset"));
    fail(&mut breaker, now);
    fail(&mut breaker, now);

    assert_eq!(breaker.reset(), None);

    assert_eq!(fail(&mut breaker, now), None);
}

/// What may happen to it.
#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    Admit,
    /// The permit at this place of those that are out.
    Settle(usize, Outcome),
    Reached,
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Failed),
        1 => Just(Outcome::Answered),
        1 => Just(Outcome::Abandoned),
    ];
    prop_oneof![
        2 => (0_u64..40).prop_map(Op::Pass),
        6 => Just(Op::Admit),
        6 => (any::<usize>(), outcome).prop_map(|(place, outcome)| Op::Settle(place, outcome)),
        1 => Just(Op::Reached),
        1 => Just(Op::Reset),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_it_keeps_its_promises(ops in prop::collection::vec(op(), 0..200)) {
        let (mut breaker, mut now) = breaker();
        // Permits that are out, and whether each is a probe of the present half-open state.
        let mut out: Vec<(Permit, u64)> = Vec::new();
        let mut in_a_row = 0;
        let mut opened_at = now;
        for op in ops {
            let (before, era) = (breaker.state(), breaker.era);
            let change = match op {
                Op::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    None
                }
                Op::Admit => match breaker.admit(now) {
                    Admission::Granted(permit, change) => {
                        prop_assert!(
                            before != BreakerState::Open || now >= opened_at + COOL_DOWN,
                            "it is not let through while it cools down"
                        );
                        out.push((permit, breaker.era));
                        change
                    }
                    Admission::Refused(wait) => {
                        prop_assert!(before != BreakerState::Closed);
                        prop_assert!(!wait.is_zero());
                        let probing = out.iter().any(|(_, of)| *of == era);
                        prop_assert!(probing || now + wait == opened_at + COOL_DOWN);
                        None
                    }
                },
                Op::Settle(place, outcome) if !out.is_empty() => {
                    let (permit, of) = out.swap_remove(place % out.len());
                    let change = breaker.settle(permit, outcome, now);
                    let counts = of == era;
                    prop_assert!(counts || change.is_none(), "it is of another time");
                    if counts && before == BreakerState::Closed {
                        match outcome {
                            Outcome::Failed => in_a_row += 1,
                            Outcome::Answered => in_a_row = 0,
                            Outcome::Abandoned => {}
                        }
                    }
                    if counts && before == BreakerState::HalfOpen && outcome != Outcome::Abandoned {
                        prop_assert!(change.is_some(), "the probe decides");
                    }
                    change
                }
                Op::Settle(..) => None,
                Op::Reached => breaker.reached(),
                Op::Reset => {
                    in_a_row = 0;
                    breaker.reset()
                }
            };
            let after = breaker.state();
            prop_assert_eq!(change.is_some(), before != after);
            prop_assert_eq!(change.as_ref().map_or(after, |change| change.state), after);
            if after == BreakerState::Open && before != BreakerState::Open {
                prop_assert!(before == BreakerState::HalfOpen || in_a_row == THRESHOLD);
                opened_at = now;
            }
            if after != before {
                in_a_row = 0;
            }
            prop_assert!(in_a_row < THRESHOLD);
            if after == BreakerState::HalfOpen {
                let probes = out.iter().filter(|(_, of)| *of == breaker.era).count();
                prop_assert!(probes <= 1, "one call at a time");
            }
        }
        // Whatever happened, it can be closed again without anybody's help.
        now += COOL_DOWN;
        let of_now = |of: &u64| *of == breaker.era;
        if let Some(place) = out.iter().position(|(_, of)| of_now(of)) {
            let (permit, _) = out.swap_remove(place);
            breaker.settle(permit, Outcome::Answered, now);
        }
        let permit = granted(&mut breaker, now);
        breaker.settle(permit, Outcome::Answered, now);
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
