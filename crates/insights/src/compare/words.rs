//! Differences in words.

use serde_json::Value;

use super::decision::DecisionDiff;
use super::differences::{self, Change, Difference};
use super::policy::PolicyDiff;
use super::read::Side;
use super::report::ParticipantsDiff;
use super::story::{Kind, Step, Story};
use super::value::clip;

/// Longest quotation, in bytes.
const MAX_QUOTE: usize = 80;

/// What a summary is made of.
pub(super) struct Told<'a> {
    pub(super) left: &'a Side,
    pub(super) right: &'a Side,
    pub(super) found: &'a [Difference],
    pub(super) identical: bool,
    pub(super) reordered: usize,
    pub(super) decision: &'a DecisionDiff,
    pub(super) policy: &'a PolicyDiff,
    pub(super) participants: &'a ParticipantsDiff,
}

/// The comparison in one sentence: where the runs part, and what came of it.
pub(super) fn summary(told: &Told<'_>) -> String {
    let steps = told.left.story.steps.len();
    if told.identical && steps == 0 {
        let status = told.left.run.state.as_str();
        return format!("neither run has any steps, and both are {status}");
    }
    let (head, end) = (head(told, steps), end(told));
    format!("{head}; {end}")
}

fn head(told: &Told<'_>, steps: usize) -> String {
    if told.identical {
        return format!("both runs took the same {}", count(steps, "step"));
    }
    // What was committed is said at the end of the sentence.
    let is_told = |one: &&Difference| !one.wording_only && !is_commitment(one, told);
    let more = told.found.iter().filter(is_told).count().saturating_sub(1);
    match differences::first(told.found) {
        Some(first) if first.wording_only => {
            let reworded = told.found.len();
            return format!(
                "both runs took the same {}, {reworded} of them worded otherwise",
                count(steps, "step")
            );
        }
        Some(first) => {
            let first = sentence(first, &told.left.story, &told.right.story);
            return match more {
                0 => first,
                1 => format!("{first}, and one more step differs"),
                more => format!("{first}, and {more} more steps differ"),
            };
        }
        None => {}
    }
    let same = format!("both runs took the same {}", count(steps, "step"));
    let policy = &told.policy.policy_version;
    if policy.left != policy.right {
        format!("{same} under policy {} instead of {}", quote(&policy.right), quote(&policy.left))
    } else if !told.participants.added.is_empty() || !told.participants.removed.is_empty() {
        format!("{same} with other participants")
    } else if told.reordered > 0 {
        format!("{same}, {} of them in another order", told.reordered)
    } else {
        same
    }
}

fn is_commitment(one: &Difference, told: &Told<'_>) -> bool {
    let step = one.left(&told.left.story).or_else(|| one.right(&told.right.story));
    step.is_some_and(|step| step.kind == Kind::Commitment)
}

fn end(told: &Told<'_>) -> String {
    let decision = told.decision;
    let action = |action: &Option<String>| quote(action.as_deref().unwrap_or("resolved"));
    let (left, right) = (told.left.run.state.as_str(), told.right.run.state.as_str());
    match (decision.finalized.left, decision.finalized.right) {
        (false, false) if left == right => {
            format!("neither came to a decision, and both are {left}")
        }
        (false, false) => {
            format!("neither came to a decision, and the run is {right} instead of {left}")
        }
        (true, false) => format!("the right run came to no decision and is {right}"),
        (false, true) => format!(
            "only the right run came to a decision, {} with outcome {}",
            action(&decision.action.right),
            decision.outcome.right
        ),
        (true, true) => {
            let is_changed = |name| decision.changed.contains(&name);
            if is_changed("outcome") {
                format!("the outcome turned {}", decision.outcome.right)
            } else if is_changed("proposal") {
                let label = |label: &Option<String>| quote(label.as_deref().unwrap_or("another"));
                let chosen = &decision.proposal;
                format!("{} was chosen instead of {}", label(&chosen.right), label(&chosen.left))
            } else if is_changed("action") {
                let (right, left) = (action(&decision.action.right), action(&decision.action.left));
                format!("the action is {right} instead of {left}")
            } else if left == right {
                let action = action(&decision.action.right);
                format!("the outcome is the same: {action}, {}", decision.outcome.right)
            } else {
                format!("the run is {right} instead of {left}")
            }
        }
    }
}

/// One difference in words, from the right run's point of view.
pub(super) fn sentence(difference: &Difference, left: &Story, right: &Story) -> String {
    let (ours, theirs) = (difference.left(left), difference.right(right));
    let who = differences::participant(ours, theirs).unwrap_or("somebody");
    match (difference.change, ours, theirs) {
        (Change::Changed, Some(ours), Some(theirs)) => {
            changed(who, difference, (ours, left), (theirs, right))
        }
        (_, _, Some(step)) => format!("only in the right run {who} {}", did(step, right)),
        (_, Some(step), None) => format!("only in the left run {who} {}", did(step, left)),
        (_, None, None) => String::new(),
    }
}

fn changed(
    who: &str,
    difference: &Difference,
    (ours, left): (&Step, &Story),
    (theirs, right): (&Step, &Story),
) -> String {
    let differs = |name: &str| difference.fields.iter().any(|field| field == name);
    let both = |name: &str| differs(name).then(|| (field(theirs, name), field(ours, name)));
    let on = about(theirs, right, " on ");
    let general = || {
        let how = if difference.wording_only { "worded otherwise" } else { "different" };
        let fields = difference.fields.join(", ");
        format!("{who}'s {}{on} is {how} ({fields})", theirs.message_type)
    };
    if differs("messageType") {
        let to = about(theirs, right, " to ");
        return format!("{who} said {} instead of {}{to}", theirs.message_type, ours.message_type);
    }
    match theirs.kind {
        Kind::Proposal => match (right.label(theirs), left.label(ours)) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                format!("{who} proposed {} instead of {}", quote(theirs), quote(ours))
            }
            _ => general(),
        },
        Kind::Vote => both("vote").map_or_else(general, |(theirs, ours)| {
            format!("{who} voted {theirs} instead of {ours}{on}")
        }),
        Kind::Evaluation => match (both("recommendation"), both("confidence")) {
            (Some((theirs, ours)), _) => {
                format!("{who} recommended {theirs} instead of {ours}{on}")
            }
            (None, Some((now, before))) => {
                let evaluated = about(theirs, right, " ");
                format!("{who} evaluated{evaluated} with confidence {now} instead of {before}")
            }
            (None, None) => general(),
        },
        Kind::Objection => both("severity").map_or_else(general, |(now, before)| {
            let to = about(theirs, right, " to ");
            format!("{who} objected{to} with severity {now} instead of {before}")
        }),
        Kind::Contribution => both("value").map_or_else(general, |(theirs, ours)| {
            format!("{who} contributed {} instead of {}", quote(&theirs), quote(&ours))
        }),
        Kind::Commitment => {
            committed(who, difference, (ours, left), (theirs, right)).unwrap_or_else(general)
        }
        Kind::Start
        | Kind::Response
        | Kind::Withdrawal
        | Kind::Ballot
        | Kind::TaskResponse
        | Kind::TaskUpdate
        | Kind::TaskResult
        | Kind::HandoffContext
        | Kind::HandoffResponse
        | Kind::Other(_) => general(),
    }
}

fn committed(
    who: &str,
    difference: &Difference,
    (ours, left): (&Step, &Story),
    (theirs, right): (&Step, &Story),
) -> Option<String> {
    let differs = |name: &str| difference.fields.iter().any(|field| field == name);
    if differs("action") {
        let (now, before) = (field(theirs, "action"), field(ours, "action"));
        return Some(format!("{who} committed {} instead of {}", quote(&now), quote(&before)));
    }
    if differs("outcomePositive") {
        let outcome = |step: &Step| match field(step, "outcomePositive").as_str() {
            "true" => "a positive",
            _ => "a negative",
        };
        let (now, before) = (outcome(theirs), outcome(ours));
        return Some(format!("{who} committed {now} outcome instead of {before} one"));
    }
    if differs("proposal") {
        let (now, before) = (right.label(theirs)?, left.label(ours)?);
        return Some(format!("{who} committed to {} instead of {}", quote(now), quote(before)));
    }
    if differs("participant") {
        let name = |step: &Step| step.participant.clone().unwrap_or_default();
        return Some(format!("{} made the commitment instead of {}", name(theirs), name(ours)));
    }
    None
}

/// What somebody did, in the past tense.
fn did(step: &Step, story: &Story) -> String {
    let on = about(step, story, " on ");
    match &step.kind {
        Kind::Start => "started the session".to_owned(),
        Kind::Proposal => format!("proposed{}", about(step, story, " ")),
        Kind::Evaluation => format!("recommended {}{on}", field(step, "recommendation")),
        Kind::Objection => format!("objected{}", about(step, story, " to ")),
        Kind::Vote => format!("voted {}{on}", field(step, "vote")),
        Kind::Contribution => format!("contributed {}", quote(&field(step, "value"))),
        Kind::Commitment => format!("committed {}", quote(&field(step, "action"))),
        Kind::Response
        | Kind::Withdrawal
        | Kind::Ballot
        | Kind::TaskResponse
        | Kind::TaskUpdate
        | Kind::TaskResult
        | Kind::HandoffContext
        | Kind::HandoffResponse
        | Kind::Other(_) => {
            format!("said {}{}", step.message_type, about(step, story, " to "))
        }
    }
}

fn about(step: &Step, story: &Story, before: &str) -> String {
    story.label(step).map_or_else(String::new, |label| format!("{before}{}", quote(label)))
}

/// A field as it is read out; what is not there reads as nothing.
fn field(step: &Step, name: &str) -> String {
    match step.fields.get(name).map(|field| &field.shown) {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => short(text),
        Some(
            value @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)),
        ) => short(&value.to_string()),
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", short(text))
}

fn short(text: &str) -> String {
    let kept = clip(text, MAX_QUOTE);
    if kept.len() == text.len() { kept.to_owned() } else { format!("{kept}…") }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("{number} {what}") } else { format!("{number} {what}s") }
}
