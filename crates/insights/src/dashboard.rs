//! The dashboard: how runs went over a period, and what their participants did.
//!
//! **Invariant:** nothing here reads a run's log. The figures are sums that are kept as runs are
//! written, so an answer costs the buckets of its period, however many runs there are.

mod agents;
mod recount;
mod span;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use control_plane_domain::rollup::{Amount, DECLINED, Figure, middle_of};
use control_plane_domain::{RunState, Timestamp, time};
use control_plane_storage::{FilingFilter, Result, Store, Sum, Waiting};
use serde::Serialize;

pub use agents::{Agent, agents};
pub use recount::differences;
pub use span::{Span, SpanFault, Window};

/// Most lines of a chart that is not over time.
const TOP: usize = 10;
/// What a run without a source is listed under.
const UNKNOWN: &str = "unknown";
/// The states of a run that waits for its session.
const QUEUE: [RunState; 3] = [RunState::Queued, RunState::Starting, RunState::BindingSession];

/// Values with what they are of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart<T> {
    pub labels: Vec<String>,
    pub data: Vec<T>,
}

/// Figures of all runs that were created in the period, but for the signals, which were sent in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kpis {
    pub total_runs: i64,
    /// Not over yet.
    pub active_runs: i64,
    pub completed_runs: i64,
    /// Completed, with a negative outcome.
    pub declined_runs: i64,
    pub failed_runs: i64,
    pub cancelled_runs: i64,
    pub suspended_runs: i64,
    /// The part of the runs that are over which completed, from 0 to 1; 0 when none is over.
    pub success_rate: f64,
    /// Of completed runs.
    pub avg_duration_ms: Option<i64>,
    pub total_signals: i64,
    pub total_tokens: i64,
    pub total_cost_usd: f64,
}

/// What the charts show.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Charts {
    /// Runs by when they were created.
    pub run_volume: Chart<i64>,
    /// How long completed runs took on average, by when they ended.
    pub latency: Chart<i64>,
    /// Failed runs by their error code, most first.
    pub error_classes: Chart<i64>,
    pub signal_volume: Chart<i64>,
    /// Completed runs by when they ended.
    pub throughput: Chart<i64>,
    /// Runs that wait for their session now, by when they were created.
    pub queue_depth: Chart<i64>,
    #[serde(rename = "latencyP50")]
    pub latency_p50: Chart<i64>,
    #[serde(rename = "latencyP95")]
    pub latency_p95: Chart<i64>,
    #[serde(rename = "latencyP99")]
    pub latency_p99: Chart<i64>,
    /// In dollars, by when the run was created.
    pub cost: Chart<f64>,
    /// In percent, by when the run was created.
    pub success_rate: Chart<f64>,
    /// Positive decisions less negative ones.
    pub decision_outcome: Chart<i64>,
    /// Runs by their source, most first.
    pub per_scenario: Chart<i64>,
}

/// What the figures are over.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    #[serde(with = "time::millis")]
    pub from: Timestamp,
    #[serde(with = "time::millis")]
    pub to: Timestamp,
    /// minute, hour or day: what a point of a chart is over.
    pub bucket: &'static str,
}

/// The figures of a period.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub period: Shown,
    pub kpis: Kpis,
    pub charts: Charts,
}

/// The figures of runs that are filed as `filter` says.
///
/// # Errors
/// Those of the database.
pub async fn overview(store: &Store, span: &Span, filter: &FilingFilter) -> Result<Overview> {
    let figures = [
        Figure::Created,
        Figure::Completed,
        Figure::Failed,
        Figure::Cancelled,
        Figure::Usage,
        Figure::Ended,
        Figure::Signals,
        Figure::Decisions,
    ];
    let sums = store.rollup_sums(&figures, span.period(), filter.clone()).await?;
    let sources =
        store.rollup_sources(Figure::Created, span.period(), filter.clone(), top(TOP)).await?;
    let mut states = QUEUE.to_vec();
    states.push(RunState::Suspended);
    let waiting = store.runs_waiting(&states, span.from, span.to, filter.clone()).await?;

    let mut tally = Tally::of(span, sums, &waiting);
    let suspended = waiting.iter().filter(|run| run.state == RunState::Suspended).count();
    tally.whole.suspended = i64::try_from(suspended).unwrap_or(i64::MAX);
    let (labels, data) =
        sources.into_iter().map(|source| (named(source.source_ref), source.count)).unzip();
    Ok(tally.show(span, Chart { labels, data }))
}

fn top(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn named(source: String) -> String {
    if source.is_empty() { UNKNOWN.to_owned() } else { source }
}

/// What is counted in a bucket of the charts, or in all of them.
#[derive(Debug, Default)]
struct Counts {
    created: i64,
    completed: Amount,
    declined: i64,
    failed: i64,
    cancelled: i64,
    suspended: i64,
    queued: i64,
    usage: Amount,
    ended: Amount,
    /// How many durations are in each bin.
    durations: BTreeMap<u64, i64>,
    signals: i64,
    decisions: Amount,
}

impl Counts {
    fn add(&mut self, sum: &Sum) {
        let Sum { figure, subject, amount, .. } = sum;
        match figure {
            Figure::Created => self.created += amount.count,
            Figure::Completed => {
                plus(&mut self.completed, *amount);
                if subject == DECLINED {
                    self.declined += amount.count;
                }
            }
            Figure::Failed => self.failed += amount.count,
            Figure::Cancelled => self.cancelled += amount.count,
            Figure::Usage => plus(&mut self.usage, *amount),
            Figure::Ended => {
                plus(&mut self.ended, *amount);
                let bin = subject.parse().unwrap_or_default();
                *self.durations.entry(bin).or_default() += amount.count;
            }
            Figure::Signals => self.signals += amount.count,
            Figure::Decisions => plus(&mut self.decisions, *amount),
            Figure::AgentRuns
            | Figure::AgentMessages
            | Figure::AgentSignals
            | Figure::AgentConfidence
            | Figure::AgentLatency => {}
        }
    }

    /// From 0 to 1.
    fn success_rate(&self) -> f64 {
        let over = self.completed.count + self.failed + self.cancelled;
        if over <= 0 { 0.0 } else { ratio(self.completed.count, over) }
    }

    /// The duration that this part of the completed runs did not exceed.
    fn percentile(&self, percent: i64) -> i64 {
        let count: i64 = self.durations.values().sum();
        let rank = (count * percent + 99) / 100;
        let mut passed = 0;
        for (bin, count) in &self.durations {
            passed += count;
            if passed >= rank && rank > 0 {
                return middle_of(*bin);
            }
        }
        0
    }
}

fn plus(to: &mut Amount, amount: Amount) {
    to.count = to.count.saturating_add(amount.count);
    to.sum = to.sum.saturating_add(amount.sum);
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

/// Dollars, from millionths of them.
fn dollars(millionths: i64) -> f64 {
    ratio(millionths, 1_000_000)
}

fn mean(amount: Amount) -> Option<i64> {
    (amount.count > 0).then(|| {
        let half = amount.count / 2;
        (amount.sum + half) / amount.count
    })
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

/// Everything counted, by buckets and in all.
struct Tally {
    buckets: BTreeMap<Timestamp, Counts>,
    whole: Counts,
    errors: BTreeMap<String, i64>,
}

impl Tally {
    fn of(span: &Span, sums: Vec<Sum>, waiting: &[Waiting]) -> Self {
        let buckets = span.buckets().into_iter().map(|start| (start, Counts::default())).collect();
        let mut tally = Self { buckets, whole: Counts::default(), errors: BTreeMap::new() };
        for sum in sums {
            if let Some(counts) = tally.buckets.get_mut(&span.step.floor(sum.bucket)) {
                counts.add(&sum);
            }
            tally.whole.add(&sum);
            if sum.figure == Figure::Failed {
                *tally.errors.entry(sum.subject).or_default() += sum.amount.count;
            }
        }
        for run in waiting.iter().filter(|run| QUEUE.contains(&run.state)) {
            if let Some(counts) = tally.buckets.get_mut(&span.step.floor(run.created_at)) {
                counts.queued += 1;
            }
        }
        tally
    }

    fn show(self, span: &Span, per_scenario: Chart<i64>) -> Overview {
        let whole = &self.whole;
        let over = whole.completed.count + whole.failed + whole.cancelled;
        let kpis = Kpis {
            total_runs: whole.created,
            active_runs: whole.created - over,
            completed_runs: whole.completed.count,
            declined_runs: whole.declined,
            failed_runs: whole.failed,
            cancelled_runs: whole.cancelled,
            suspended_runs: whole.suspended,
            success_rate: rounded(whole.success_rate(), 4),
            avg_duration_ms: mean(whole.completed),
            total_signals: whole.signals,
            total_tokens: whole.usage.count,
            total_cost_usd: rounded(dollars(whole.usage.sum), 2),
        };
        let charts = Charts {
            run_volume: self.chart(|counts| counts.created),
            latency: self.chart(|counts| mean(counts.ended).unwrap_or(0)),
            error_classes: self.error_classes(),
            signal_volume: self.chart(|counts| counts.signals),
            throughput: self.chart(|counts| counts.ended.count),
            queue_depth: self.chart(|counts| counts.queued),
            latency_p50: self.chart(|counts| counts.percentile(50)),
            latency_p95: self.chart(|counts| counts.percentile(95)),
            latency_p99: self.chart(|counts| counts.percentile(99)),
            cost: self.chart(|counts| dollars(counts.usage.sum)),
            success_rate: self.chart(|counts| rounded(counts.success_rate() * 100.0, 2)),
            decision_outcome: self.chart(|counts| counts.decisions.count - counts.decisions.sum),
            per_scenario,
        };
        Overview { period: span.shown(), kpis, charts }
    }

    /// A point for each bucket, whether or not something happened in it.
    fn chart<T>(&self, value: impl Fn(&Counts) -> T) -> Chart<T> {
        Chart {
            labels: self.buckets.keys().map(|start| time::format(*start)).collect(),
            data: self.buckets.values().map(value).collect(),
        }
    }

    fn error_classes(&self) -> Chart<i64> {
        let mut codes: Vec<(&String, i64)> =
            self.errors.iter().map(|(code, count)| (code, *count)).collect();
        codes.retain(|(_, count)| *count > 0);
        codes.sort_by(|(one, some), (other, more)| more.cmp(some).then(one.cmp(other)));
        codes.truncate(TOP);
        let (labels, data) = codes.into_iter().map(|(code, count)| (code.clone(), count)).unzip();
        Chart { labels, data }
    }
}
