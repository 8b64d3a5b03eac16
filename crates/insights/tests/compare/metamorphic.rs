//! What must hold of any two runs.

use control_plane_insights::compare::{self, Change, Comparison};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use crate::support::{DECISION, Dress, Line, MULTI_ROUND, Talk, compared, line, side};
use crate::talks::{PEOPLE, Texts, talk, talk_in};

/// That nothing differs, figures included.
fn is_nothing(found: &Comparison) -> Result<(), TestCaseError> {
    prop_assert!(found.identical, "{}", found.summary);
    prop_assert!(found.status_match);
    prop_assert_eq!(&found.alignment.differences, &[]);
    prop_assert_eq!(found.alignment.reordered, 0);
    prop_assert_eq!(&found.first_divergence, &None);
    prop_assert_eq!(&found.participant_changes, &[]);
    prop_assert_eq!(found.duration_delta_ms, Some(0));
    prop_assert!(found.confidence_delta.is_none_or(|delta| delta == 0.0));
    prop_assert_eq!((found.tokens_delta.total, found.cost_delta_usd), (0, 0.0));
    prop_assert!(found.decision_diff.changed.is_empty() && found.policy_diff.changed.is_empty());
    prop_assert!(found.participants_diff.added.is_empty());
    prop_assert!(found.participants_diff.removed.is_empty());
    prop_assert!(found.signals_diff.added.is_empty() && found.signals_diff.removed.is_empty());
    prop_assert!(found.summary.starts_with("both runs took the same"), "{}", found.summary);
    Ok(())
}

/// The comparison from the other side.
fn mirrored(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut turned = Map::new();
            for (name, value) in fields {
                let value = match name.as_str() {
                    // Words are said from one point of view.
                    "summary" | "sentence" => continue,
                    "steps" if value.is_array() => continue,
                    "durationDeltaMs" | "confidenceDelta" | "costDeltaUsd" | "tokensDelta"
                    | "latencyDelta" => negated(value),
                    "common" => sorted(value),
                    // Where the same thing is missing here and there at the same point, either
                    // comes first.
                    "differences" | "tallies" => unordered(mirrored(value)),
                    "firstDivergence" => without_sides(value),
                    _ => mirrored(value),
                };
                let name = match name.as_str() {
                    "left" => "right",
                    "right" => "left",
                    "added" => "removed",
                    "removed" => "added",
                    same => same,
                };
                turned.insert(name.to_owned(), value);
            }
            if let Some(change) = turned.get_mut("change") {
                *change = match change.as_str() {
                    Some("added") => json!("removed"),
                    Some("removed") => json!("added"),
                    _ => change.clone(),
                };
            }
            Value::Object(turned)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(mirrored).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn negated(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, negated(value))).collect())
        }
        Value::Number(number) => json!(-number.as_f64().unwrap()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => value,
    }
}

fn sorted(value: Value) -> Value {
    let mut names: Vec<String> = serde_json::from_value(value).unwrap();
    names.sort_unstable();
    json!(names)
}

fn unordered(value: Value) -> Value {
    let Value::Array(mut items) = value else { panic!("a list") };
    items.sort_by_cached_key(|item| (item["afterSteps"].as_i64(), item.to_string()));
    Value::Array(items)
}

/// What it is about, whichever side it is on; of a change both.
fn without_sides(value: Value) -> Value {
    if !value.is_object() {
        return value;
    }
    let sides = ["left", "right"].map(|side| value[side].clone());
    let mut steps: Vec<String> =
        sides.iter().filter(|step| step.is_object()).map(Value::to_string).collect();
    steps.sort_unstable();
    for step in &mut steps {
        // Its place in the log is not the same on both sides.
        *step = step.split("\"value\"").last().unwrap_or_default().to_owned();
    }
    json!([value["afterSteps"], value["kind"], value["participant"], steps.len(), steps])
}

fn json_of(found: &Comparison) -> Value {
    serde_json::to_value(found).unwrap()
}

/// Something else of the same kind, and what of it is another.
fn otherwise(said: &Line) -> Option<(Line, &'static str)> {
    let mut other = said.clone();
    let (field, value) = match said.message_type {
        "Vote" => ("vote", json!("NEITHER")),
        "Evaluation" => ("recommendation", json!("OTHERWISE")),
        "Objection" => ("severity", json!("critical")),
        "TaskUpdate" => ("progress", json!(0.99)),
        "HandoffContext" => ("contentType", json!("text/other")),
        "Contribute" => ("value", json!("something else")),
        "Commitment" => ("action", json!("decision.otherwise")),
        "Accept" | "Approve" | "Abstain" => {
            other.message_type = "Reject";
            return Some((other, "messageType"));
        }
        "TaskAccept" => {
            other.message_type = "TaskReject";
            return Some((other, "messageType"));
        }
        "HandoffAccept" => {
            other.message_type = "HandoffDecline";
            return Some((other, "messageType"));
        }
        _ => return None,
    };
    other.fields[field] = value;
    Some((other, field))
}

/// The one line, of those that `wanted` takes, that `index` means.
fn pick(talk: &Talk, index: Index, wanted: impl Fn(&Line) -> bool) -> Option<usize> {
    let places: Vec<usize> =
        (0..talk.lines.len()).filter(|place| wanted(&talk.lines[*place])).collect();
    (!places.is_empty()).then(|| *index.get(&places))
}

fn is_made(line: &Line) -> bool {
    ["Proposal", "CounterProposal", "TaskRequest", "HandoffOffer", "ApprovalRequest"]
        .contains(&line.message_type)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_run_with_itself_gives_nothing(talk in talk(Texts::Any)) {
        let one = side(&talk, &Dress::PLAIN);
        is_nothing(&compare::runs(&one, &one))?;
    }

    #[test]
    fn other_ids_and_other_times_give_nothing(
        talk in talk(Texts::Any),
        salt in 2_u64..u64::MAX,
        start in 0_i64..1_000_000_000_000,
    ) {
        let dressed = Dress { salt, start, pace: Dress::PLAIN.pace };
        let found = compare::runs(&side(&talk, &Dress::PLAIN), &side(&talk, &dressed));
        is_nothing(&found)?;
    }

    #[test]
    fn a_run_that_took_longer_differs_in_how_long_it_took(
        talk in talk(Texts::Any),
        pace in 1001_i64..100_000,
    ) {
        let slow = Dress { salt: 2, start: 5, pace };
        let found = compare::runs(&side(&talk, &Dress::PLAIN), &side(&talk, &slow));
        prop_assert!(found.identical && found.duration_delta_ms > Some(0));
    }

    #[test]
    fn swapping_the_sides_mirrors_the_answer(
        (left, right) in select(vec![DECISION, "macp.mode.task.v1", MULTI_ROUND, ""]).prop_flat_map(
            |mode| match mode {
                "" => (talk(Texts::Any).boxed(), talk(Texts::Any).boxed()),
                mode => (
                    talk_in(Just(mode), Texts::Any).boxed(),
                    talk_in(Just(mode), Texts::Any).boxed(),
                ),
            },
        ),
    ) {
        let other = Dress { salt: 2, start: 77, pace: 700 };
        let (left, right) = (side(&left, &Dress::PLAIN), side(&right, &other));
        let there = json_of(&compare::runs(&left, &right));
        let back = json_of(&compare::runs(&right, &left));
        // Mirrored twice: once for the sides, once to leave out the words of both.
        prop_assert_eq!(mirrored(mirrored(back)), mirrored(there));
    }

    #[test]
    fn something_said_otherwise_is_that_change_and_nothing_else(
        before in talk(Texts::Distinct),
        index in any::<Index>(),
    ) {
        let place = pick(&before, index, |line| otherwise(line).is_some());
        prop_assume!(place.is_some());
        let place = place.unwrap();
        let (said, field) = otherwise(&before.lines[place]).unwrap();
        prop_assume!(said != before.lines[place]);
        let mut after = before.clone();
        after.lines[place] = said;

        let found = compared(&before, &after);

        prop_assert_eq!(found.alignment.differences.len(), 1, "{}", json_of(&found));
        let one = &found.alignment.differences[0];
        prop_assert_eq!((one.change, one.wording_only), (Change::Changed, false));
        prop_assert_eq!(&one.fields, &[field.to_owned()]);
        prop_assert_eq!(one.participant.as_deref(), Some(before.lines[place].sender.as_str()));
        prop_assert_eq!(&found.first_divergence, &Some(one.clone()));
        prop_assert!(!found.identical);
    }

    #[test]
    fn something_left_out_is_removed_and_put_in_again_is_added(
        whole in talk(Texts::Distinct),
        index in any::<Index>(),
    ) {
        let place = pick(&whole, index, |line| !is_made(line) && line.message_type != "Signal");
        prop_assume!(place.is_some());
        let mut less = whole.clone();
        let gone = less.lines.remove(place.unwrap());

        for (found, change) in
            [(compared(&whole, &less), Change::Removed), (compared(&less, &whole), Change::Added)]
        {
            prop_assert_eq!(found.alignment.differences.len(), 1, "{}", json_of(&found));
            let one = &found.alignment.differences[0];
            prop_assert_eq!(one.change, change);
            prop_assert_eq!(one.participant.as_deref(), Some(gone.sender.as_str()));
            let step = one.left.as_ref().or(one.right.as_ref()).unwrap();
            prop_assert_eq!(step.message_type.as_str(), gone.message_type);
        }
    }

    #[test]
    fn one_more_evaluation_is_one_more_evaluation(
        before in talk_in(Just(DECISION), Texts::Distinct),
        who in select(PEOPLE.to_vec()),
        index in any::<Index>(),
    ) {
        let made = before.lines.iter().filter(|line| is_made(line)).count();
        let place = made + index.index(before.lines.len() - made + 1);
        let mut after = before.clone();
        let fields = json!({ "recommendation": "REVIEW", "confidence": 0.6 });
        after.lines.insert(place, line(who, "Evaluation", index.index(made), fields));

        let found = compared(&before, &after);

        prop_assert_eq!(found.alignment.differences.len(), 1, "{}", json_of(&found));
        let one = &found.alignment.differences[0];
        prop_assert_eq!((one.change, one.kind.as_str()), (Change::Added, "evaluation"));
        prop_assert_eq!(one.participant.as_deref(), Some(who));
    }

    #[test]
    fn another_text_of_a_proposal_is_that_and_leaves_what_is_said_of_it(
        before in talk(Texts::Distinct),
        index in any::<Index>(),
    ) {
        let place = pick(&before, index, is_made);
        prop_assume!(place.is_some());
        let place = place.unwrap();
        let mut after = before.clone();
        let names = ["option", "title", "scope", "action"];
        let name = names.iter().find(|name| !before.lines[place].fields[**name].is_null()).unwrap();
        after.lines[place].fields[*name] = json!("a text of its own");

        let found = compared(&before, &after);

        prop_assert_eq!(found.alignment.differences.len(), 1, "{}", json_of(&found));
        let one = &found.alignment.differences[0];
        prop_assert_eq!((one.change, one.kind.as_str()), (Change::Changed, "proposal"));
        prop_assert_eq!(&one.fields, &[(*name).to_owned()]);
    }

    #[test]
    fn another_outcome_is_another_outcome(
        before in talk(Texts::Distinct),
        index in any::<Index>(),
    ) {
        let place = pick(&before, index, |line| line.message_type == "Commitment");
        prop_assume!(place.is_some());
        let place = place.unwrap();
        let mut after = before.clone();
        let positive = before.lines[place].fields["outcomePositive"] == json!(true);
        after.lines[place].fields["outcomePositive"] = json!(!positive);

        let found = compared(&before, &after);

        prop_assert_eq!(found.alignment.differences.len(), 1, "{}", json_of(&found));
        prop_assert_eq!(&found.alignment.differences[0].fields, &["outcomePositive".to_owned()]);
        prop_assert_eq!(&found.decision_diff.changed, &["outcome"]);
        let turned = if positive { "the outcome turned negative" } else { "the outcome turned positive" };
        prop_assert!(found.summary.ends_with(turned), "{}", found.summary);
    }

    #[test]
    fn other_words_are_no_other_step(before in talk(Texts::Distinct), index in any::<Index>()) {
        let place = pick(&before, index, |line| !line.fields["reason"].is_null());
        prop_assume!(place.is_some());
        let mut after = before.clone();
        after.lines[place.unwrap()].fields["reason"] = json!("in other words");

        let found = compared(&before, &after);

        prop_assert_eq!(found.alignment.differences.len(), 1, "{}", json_of(&found));
        prop_assert!(found.alignment.differences[0].wording_only);
        prop_assert_eq!(found.alignment.worded_otherwise, 1);
    }
}
