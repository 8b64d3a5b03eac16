//! The recorder: what was heard goes to the database, in batches, for as long as this instance has
//! the duty.
//!
//! **Invariant:** what could not be written stays in the ear and is written later; only what the
//! database refuses for its data is dropped, counted and logged.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use control_plane_domain::RunId;
use control_plane_storage::{Duty, Error, SignalNews, SignalsDone};
use tokio::time::MissedTickBehavior;

use super::ear::{Closed, Work};
use crate::engine::Context;
use crate::run::pause;

/// Most signals of one transaction, and most bytes of them.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long leaving may take: what is not written then is a gap.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the recorder looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Tick,
    News,
    NewRun,
}

struct Recorder<'a> {
    context: &'a Arc<Context>,
    /// Whether this instance has the duty.
    on_duty: bool,
    /// Whether it was ever asked for.
    asked: bool,
    /// Whether there may be signals that wait for their run.
    holding: bool,
    /// Whether the database failed the last time, and the log says so.
    failing: bool,
}

/// Records until the engine stops.
pub(super) async fn record(context: &Arc<Context>) {
    let mut recorder = Recorder::new(context);
    let mut ticks = tokio::time::interval(context.config.claim);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let cause = tokio::select! {
            () = context.stop.cancelled() => break,
            _ = ticks.tick() => Cause::Tick,
            () = context.ear.news() => Cause::News,
            () = context.ear.asked_to_look() => Cause::NewRun,
        };
        match recorder.round(cause).await {
            Ok(()) => recorder.failing = false,
            Err(fault) => {
                if !std::mem::replace(&mut recorder.failing, true) {
                    tracing::warn!(error = %fault, "Could not record signals; trying again");
                }
                if pause(context, context.config.backoff_base).await.is_err() {
                    break;
                }
                // What was heard still waits, and nobody may say so again.
                ticks.reset_immediately();
            }
        }
    }
    context.ear.closed(context.clock.now(), Closed::Left);
    if recorder.on_duty {
        // Late or failed, the mark stays where it is, and the next start counts from there.
        let _ = tokio::time::timeout(FAREWELL, recorder.flush(true)).await;
    }
}

impl<'a> Recorder<'a> {
    fn new(context: &'a Arc<Context>) -> Self {
        Self { context, on_duty: false, asked: false, holding: true, failing: false }
    }

    async fn round(&mut self, cause: Cause) -> Result<(), Error> {
        if cause == Cause::Tick || !self.asked {
            self.duty().await?;
        }
        if !self.on_duty {
            return Ok(());
        }
        self.flush(cause == Cause::Tick).await?;
        if self.holding && cause != Cause::News {
            self.deliver().await?;
        }
        if self.holding && cause == Cause::Tick {
            self.expire().await?;
        }
        Ok(())
    }

    /// Takes the duty when it is free, and notices when somebody else has it.
    async fn duty(&mut self) -> Result<(), Error> {
        let context = self.context;
        // Before the watch was tried once it is not known since when we listen.
        if !context.ear.has_tried() {
            return Ok(());
        }
        self.asked = true;
        let has = context.store.duty_hold(Duty::Signals).await?;
        if has && !self.on_duty {
            let watch = context.store.signal_watch().await?;
            context.ear.take_over(&watch, context.clock.now());
            self.holding = true;
            tracing::info!("This instance records signals now");
        } else if !has && self.on_duty {
            context.ear.step_down(context.clock.now());
            tracing::info!("Another instance records signals now");
        }
        self.on_duty = has;
        Ok(())
    }

    /// Writes all that waits; with `mark`, also that nothing does.
    async fn flush(&mut self, mark: bool) -> Result<(), Error> {
        loop {
            let context = self.context;
            let work = context.ear.work(BATCH, BATCH_BYTES, context.clock.now());
            if work.items.is_empty() && work.gaps.is_empty() && !mark {
                return Ok(());
            }
            let done = self.write(&work).await?;
            context.ear.done(&work);
            for gap in work.new_gaps() {
                tracing::warn!(from = %gap.from, to = ?gap.to, reason = gap.reason, "Signals were not heard");
                let reason = gap.reason.clone();
                metrics::counter!("macp_signal_watch_gaps_total", "reason" => reason).increment(1);
            }
            self.holding |= done.held > 0;
            self.serve(done.runs).await;
            if !work.more {
                return Ok(());
            }
        }
    }

    async fn write(&self, work: &Work) -> Result<SignalsDone, Error> {
        let hold_at_most = i64::from(self.context.config.signal_hold_max);
        let (mut signals, mut unfit) = (Vec::with_capacity(work.items.len()), Vec::new());
        for item in &work.items {
            match super::signal(item.seen.clone(), item.at) {
                Ok(signal) => signals.push(signal),
                Err(why) => unfit.push(why),
            }
        }
        let (gaps, heard_until) = (work.gaps.clone(), work.heard_until);
        let news = SignalNews { signals, gaps, heard_until, hold_at_most };
        let done = match self.context.store.signals_record(news.clone()).await {
            Err(fault) if !fault.is_transient() => self.write_apart(news).await?,
            done => done?,
        };
        count(&done);
        for why in unfit {
            tracing::debug!(reason = why.as_str(), "Dropped a signal");
            told(why.as_str(), 1);
        }
        Ok(done)
    }

    /// The database refused one of them, or a run was deleted just now: each for itself.
    async fn write_apart(&self, news: SignalNews) -> Result<SignalsDone, Error> {
        let (mut all, mut refused) = (SignalsDone::default(), 0);
        for signal in news.signals {
            let (id, hold_at_most) = (signal.message_id.clone(), news.hold_at_most);
            let alone = SignalNews { signals: vec![signal], hold_at_most, ..SignalNews::default() };
            match self.context.store.signals_record(alone).await {
                Ok(done) => {
                    all.recorded += done.recorded;
                    all.held += done.held;
                    all.ambiguous += done.ambiguous;
                    all.crowded_out += done.crowded_out;
                    all.runs.extend(done.runs);
                }
                Err(fault) if fault.is_transient() => return Err(fault),
                Err(fault) => {
                    tracing::error!(error = %fault, message.id = id, "A signal is lost");
                    refused += 1;
                }
            }
        }
        let rest = SignalNews { signals: Vec::new(), ..news };
        self.context.store.signals_record(rest).await?;
        told("refused", refused);
        all.runs.sort();
        all.runs.dedup();
        Ok(all)
    }

    /// Hands over what is held for runs that are known by now.
    async fn deliver(&mut self) -> Result<(), Error> {
        let done = self.context.store.signals_deliver().await?;
        self.holding = done.held > 0;
        told("delivered", done.recorded);
        told("ambiguous", done.ambiguous);
        if done.ambiguous > 0 {
            tracing::warn!(
                signals.count = done.ambiguous,
                "Dropped held signals about messages that several runs have"
            );
        }
        let held = f64::from(u32::try_from(done.held).unwrap_or(u32::MAX));
        metrics::gauge!("macp_signals_held").set(held);
        self.serve(done.runs).await;
        Ok(())
    }

    async fn expire(&self) -> Result<(), Error> {
        let context = self.context;
        let hold = TimeDelta::from_std(context.config.signal_hold).unwrap_or(TimeDelta::MAX);
        let Some(before) = context.clock.now().checked_sub_signed(hold) else { return Ok(()) };
        let expired = context.store.signals_expire(before).await?;
        if expired > 0 {
            tracing::warn!(
                signals.count = expired,
                "Dropped held signals: no run that they are about has appeared"
            );
            told("expired", expired);
        }
        Ok(())
    }

    /// Sees to it that somebody takes what is in the inboxes. What fails here is seen to by the
    /// owners' next look into them.
    async fn serve(&self, runs: Vec<RunId>) {
        for id in runs {
            match self.context.serve_inbox(id).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(fault) => {
                    tracing::debug!(run.id = %id, error = %fault, "Could not serve an inbox yet");
                }
            }
        }
    }
}

fn count(done: &SignalsDone) {
    let SignalsDone { runs: _, recorded, held, ambiguous, crowded_out } = done;
    told("recorded", *recorded);
    told("held", *held);
    told("ambiguous", *ambiguous);
    told("crowded_out", *crowded_out);
    if *ambiguous > 0 {
        tracing::warn!(
            signals.count = *ambiguous,
            "Dropped signals about messages that several runs have"
        );
    }
    if *crowded_out > 0 {
        tracing::warn!(
            signals.count = *crowded_out,
            "Dropped the oldest held signals: too many wait for their runs"
        );
    }
}

fn told(outcome: &'static str, count: usize) {
    if count > 0 {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        metrics::counter!("macp_signals_total", "outcome" => outcome).increment(count);
    }
}
