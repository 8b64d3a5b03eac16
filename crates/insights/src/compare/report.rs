//! Everything that is said of two runs.
//!
//! **Invariant:** what is left out because there is too much of it is counted, and said in `limits`.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{RunId, SessionId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::align::{self, Aligned};
use super::decision::{self, DecisionDiff};
use super::differences::{self, Change, Difference};
use super::pair;
use super::policy::{self, PolicyDiff};
use super::read::Side;
use super::story::{Calls, MAX_STEPS, Step, Story};
use super::words;

/// Most differences that are listed.
const MAX_DIFFERENCES: usize = 500;
/// Most that are listed of one participant.
const MAX_STEPS_EACH: usize = 20;
/// As many as a state keeps.
const MAX_PARTICIPANTS: usize = 1000;

/// Something of the left run and the same of the right one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair<T> {
    pub left: T,
    pub right: T,
}

impl<T> Pair<T> {
    pub(super) fn new(left: T, right: T) -> Self {
        Self { left, right }
    }
}

/// Two runs, held against each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// In one sentence.
    pub summary: String,
    /// Whether nothing differs but figures.
    pub identical: bool,
    pub left: SideView,
    pub right: SideView,
    pub status_match: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_delta_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence_delta: Option<f64>,
    pub participants_diff: ParticipantsDiff,
    pub signals_diff: SignalsDiff,
    pub decision_diff: DecisionDiff,
    /// The first step that differs by more than its wording, if there is one; else the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_divergence: Option<DifferenceView>,
    pub alignment: AlignmentView,
    pub participant_changes: Vec<ParticipantChange>,
    pub policy_diff: PolicyDiff,
    pub tokens_delta: Tokens,
    pub cost_delta_usd: f64,
    pub latency_delta: LatencyDelta,
    /// What was not compared, or is not listed, because there is too much of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// One of the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SideView {
    pub run_id: RunId,
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// How many steps were read.
    pub steps: usize,
    pub tokens: Tokens,
    pub cost_usd: f64,
    pub llm_calls: i64,
    /// Of all calls that have said how long they took, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_latency_ms: Option<f64>,
}

/// Tokens of language models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    pub prompt: i64,
    pub completion: i64,
    pub total: i64,
}

/// How much longer the right run took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<i64>,
    /// All calls of language models together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_ms: Option<f64>,
    /// One call on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_mean_ms: Option<f64>,
}

/// Who takes part in one run and not in the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParticipantsDiff {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub common: Vec<String>,
}

/// Which signals are in one run and not in the other, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignalsDiff {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// How the steps of the two runs belong together.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlignmentView {
    /// Steps that are the same in both.
    pub unchanged: usize,
    /// In the right run only.
    pub added: usize,
    /// In the left run only.
    pub removed: usize,
    /// In both, and not the same.
    pub changed: usize,
    /// How many of the changed ones differ in explanations only.
    pub worded_otherwise: usize,
    /// How many that are in both stand in another order.
    pub reordered: usize,
    /// In the order of the runs.
    pub differences: Vec<DifferenceView>,
}

/// A step that is not the same in both.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DifferenceView {
    pub change: Change,
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<StepView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<StepView>,
    /// What differs in a changed step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    pub wording_only: bool,
    /// How many steps both runs have in common before it.
    pub after_steps: usize,
    pub sentence: String,
}

/// A step of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    pub seq: i64,
    pub message_type: String,
    /// What it is about, by its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<String>,
    /// Without ids and times.
    pub value: Map<String, Value>,
}

impl StepView {
    fn new(story: &Story, step: &Step) -> Self {
        let fields = step.fields.iter();
        Self {
            seq: step.seq,
            message_type: step.message_type.clone(),
            proposal: story.label(step).map(str::to_owned),
            value: fields.map(|(name, field)| (name.clone(), field.shown.clone())).collect(),
        }
    }
}

/// What one participant did otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantChange {
    pub participant_id: String,
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    pub worded_otherwise: usize,
    /// The first of them, in words.
    pub steps: Vec<String>,
}

/// Compares two runs: what has the right one otherwise than the left one?
#[must_use]
pub fn runs(left: &Side, right: &Side) -> Comparison {
    let pairing = pair::pair(&left.story.proposals, &right.story.proposals);
    let aligned = align::align(&left.story, &right.story, &pairing);
    let found = differences::find(&left.story, &right.story, &pairing, &aligned);
    let (ours, theirs) = ((&left.state, &left.story), (&right.state, &right.story));
    let decision_diff = decision::compare(ours, theirs, &pairing);
    let policy_diff = policy::compare(ours, theirs, &pairing);
    let participants_diff = participants(left, right);
    let signals_diff = signals(left, right);
    let (tokens, figures) = (
        Pair::new(tokens(&left.metrics), tokens(&right.metrics)),
        Pair { left: left.story.calls, right: right.story.calls },
    );
    let status_match = left.run.state == right.run.state;
    let identical = found.is_empty()
        && status_match
        && aligned.reordered() == 0
        && decision_diff.changed.is_empty()
        && policy_diff.changed.is_empty()
        && participants_diff.added.is_empty()
        && participants_diff.removed.is_empty()
        && signals_diff.added.is_empty()
        && signals_diff.removed.is_empty()
        && left.state.run.mode_name == right.state.run.mode_name;
    let durations = left.metrics.duration_ms.zip(right.metrics.duration_ms);
    let duration_delta_ms = durations.map(|(left, right)| right - left);
    let confidences = decision_diff.confidence.left.zip(decision_diff.confidence.right);
    let told = words::Told {
        left,
        right,
        found: &found,
        identical,
        reordered: aligned.reordered(),
        decision: &decision_diff,
        policy: &policy_diff,
        participants: &participants_diff,
    };
    Comparison {
        summary: words::summary(&told),
        identical,
        left: side(left, tokens.left),
        right: side(right, tokens.right),
        status_match,
        duration_delta_ms,
        confidence_delta: confidences.map(|(left, right)| right - left),
        first_divergence: differences::first(&found).map(|first| view(first, left, right)),
        participant_changes: participant_changes(&found, left, right),
        limits: limits(left, right, &aligned, found.len()),
        alignment: alignment(&aligned, &found, left, right),
        decision_diff,
        policy_diff,
        participants_diff,
        signals_diff,
        tokens_delta: Tokens {
            prompt: tokens.right.prompt - tokens.left.prompt,
            completion: tokens.right.completion - tokens.left.completion,
            total: tokens.right.total - tokens.left.total,
        },
        cost_delta_usd: right.metrics.estimated_cost_usd - left.metrics.estimated_cost_usd,
        latency_delta: LatencyDelta {
            run_ms: duration_delta_ms,
            llm_ms: delta(figures.left.total_ms(), figures.right.total_ms()),
            llm_mean_ms: delta(figures.left.mean_ms(), figures.right.mean_ms()),
        },
    }
}

impl Calls {
    fn total_ms(self) -> Option<f64> {
        (self.timed > 0).then_some(self.latency_ms)
    }

    fn mean_ms(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "calls are at most thousands")]
        let calls = self.timed as f64;
        self.total_ms().map(|total| total / calls)
    }
}

fn delta(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    left.zip(right).map(|(left, right)| right - left)
}

fn tokens(metrics: &RunMetrics) -> Tokens {
    Tokens {
        prompt: metrics.prompt_tokens,
        completion: metrics.completion_tokens,
        total: metrics.total_tokens,
    }
}

fn side(side: &Side, tokens: Tokens) -> SideView {
    let Side { run, state, metrics, story } = side;
    SideView {
        run_id: run.id,
        status: run.state.as_str(),
        mode_name: state.run.mode_name.clone(),
        duration_ms: metrics.duration_ms,
        session_id: run.session_id.as_ref().map(SessionId::as_str).map(str::to_owned),
        steps: story.steps.len(),
        tokens,
        cost_usd: metrics.estimated_cost_usd,
        llm_calls: story.calls.count,
        llm_latency_ms: story.calls.total_ms(),
    }
}

fn participants(left: &Side, right: &Side) -> ParticipantsDiff {
    let (left, right) = (&left.state.participants, &right.state.participants);
    let mut diff = ParticipantsDiff { added: Vec::new(), removed: Vec::new(), common: Vec::new() };
    for one in right.iter().filter(|one| left.get(&one.participant_id).is_none()) {
        diff.added.push(one.participant_id.clone());
    }
    for one in left.iter() {
        let list = match right.get(&one.participant_id) {
            Some(_) => &mut diff.common,
            None => &mut diff.removed,
        };
        list.push(one.participant_id.clone());
    }
    diff
}

fn signals(left: &Side, right: &Side) -> SignalsDiff {
    // The state has the last ones, the story the first.
    let names = |side: &Side| -> BTreeSet<String> {
        let last = side.state.signals.signals.iter().map(|signal| signal.name.clone());
        side.story.signals.iter().cloned().chain(last).collect()
    };
    let (left, right) = (names(left), names(right));
    SignalsDiff {
        added: right.difference(&left).cloned().collect(),
        removed: left.difference(&right).cloned().collect(),
    }
}

fn view(difference: &Difference, left: &Side, right: &Side) -> DifferenceView {
    let (left, right) = (&left.story, &right.story);
    let (ours, theirs) = (difference.left(left), difference.right(right));
    DifferenceView {
        change: difference.change,
        kind: ours.or(theirs).map_or_else(String::new, |step| step.kind.as_str().to_owned()),
        participant: differences::participant(ours, theirs).map(str::to_owned),
        left: ours.map(|step| StepView::new(left, step)),
        right: theirs.map(|step| StepView::new(right, step)),
        fields: difference.fields.clone(),
        wording_only: difference.wording_only,
        after_steps: difference.after,
        sentence: words::sentence(difference, left, right),
    }
}

fn alignment(aligned: &Aligned, found: &[Difference], left: &Side, right: &Side) -> AlignmentView {
    let count = |change| found.iter().filter(|one| one.change == change).count();
    let changed = count(Change::Changed);
    AlignmentView {
        unchanged: aligned.pairs.len() - changed,
        added: count(Change::Added),
        removed: count(Change::Removed),
        changed,
        worded_otherwise: found.iter().filter(|one| one.wording_only).count(),
        reordered: aligned.reordered(),
        differences: found
            .iter()
            .take(MAX_DIFFERENCES)
            .map(|difference| view(difference, left, right))
            .collect(),
    }
}

fn participant_changes(found: &[Difference], left: &Side, right: &Side) -> Vec<ParticipantChange> {
    let mut changes: BTreeMap<&str, ParticipantChange> = BTreeMap::new();
    for difference in found {
        let (ours, theirs) = (difference.left(&left.story), difference.right(&right.story));
        let Some(participant) = differences::participant(ours, theirs) else { continue };
        let change = changes.entry(participant).or_insert_with(|| ParticipantChange {
            participant_id: participant.to_owned(),
            added: 0,
            removed: 0,
            changed: 0,
            worded_otherwise: 0,
            steps: Vec::new(),
        });
        match difference.change {
            Change::Added => change.added += 1,
            Change::Removed => change.removed += 1,
            Change::Changed => change.changed += 1,
        }
        change.worded_otherwise += usize::from(difference.wording_only);
        if change.steps.len() < MAX_STEPS_EACH {
            change.steps.push(words::sentence(difference, &left.story, &right.story));
        }
    }
    changes.into_values().collect()
}

fn limits(left: &Side, right: &Side, aligned: &Aligned, found: usize) -> Vec<String> {
    let mut limits = Vec::new();
    for (name, side) in [("left", left), ("right", right)] {
        if let Some(seq) = side.story.stops_at {
            limits.push(format!(
                "the {name} run was compared up to event {seq}: {} steps of at most {MAX_STEPS}",
                side.story.steps.len()
            ));
        }
        if side.state.participants.len() >= MAX_PARTICIPANTS {
            limits.push(format!("of the {name} run {MAX_PARTICIPANTS} participants were compared"));
        }
    }
    if aligned.is_rough {
        limits.push(
            "somebody has too many steps of one kind: they were compared place by place".to_owned(),
        );
    }
    if found > MAX_DIFFERENCES {
        limits.push(format!("{MAX_DIFFERENCES} of {found} differences are listed"));
    }
    limits
}
