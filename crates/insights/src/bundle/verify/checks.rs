//! The checks of a bundle that was read: its bytes first, then what they say.

use control_plane_domain::RunId;
use control_plane_domain::control::NOT_DELIVERED;
use control_plane_domain::metrics::RunMetrics;

use super::super::format::{End, Gap, Manifest, ManifestFault, Part, PartHash, Sum, Truncated};
use super::super::read::{Place, ReadFault};
use super::super::write::Shape;
use super::log::parse_hash;
use super::marks::{Difference, difference};
use super::report::{Check, Faults, Report, Verdict};
use super::{Found, Options, envelopes};

/// Everything that can be told of what was read.
pub(super) fn report(
    found: &mut Found,
    shape: Shape,
    broken: Option<ReadFault>,
    options: &Options,
) -> Report {
    let mut checks = vec![layout(found, shape, broken), manifest(found.manifest.as_ref())];
    // Each is used once, for its own check.
    let manifest = found.manifest.take().and_then(Result::ok);
    if let Some(end) = &found.end {
        // In lines, what was cut stands at the end alone.
        let end: Option<End> = serde_json::from_slice(end).ok();
        found.truncated = end.and_then(|end| end.truncated);
        if let Some(truncated) = &found.truncated {
            found.values.insert(Part::Truncated, PartHash::of(&json(truncated)));
        }
    }
    let mut begins_after = None;
    let mut partial = None;
    if let Some(manifest) = &manifest {
        for part in Part::ALL {
            checks.extend(self::part(found, part, manifest));
        }
        checks.push(run_id(found, manifest.run_id));
        checks.push(order(found, manifest));
        checks.push(chain(found, manifest));
        checks.push(extent(found, manifest));
        checks.push(ordinals(found, manifest));
        checks.push(gaps(found, manifest));
        checks.push(state(found, manifest));
        checks.push(figures(found, manifest));
        if shape == Shape::Lines {
            checks.push(end(found, manifest));
        }
        if let Some(hash) = &options.known_hash {
            checks.push(known_hash(found, manifest, hash));
        }
        let is_later = manifest.chain.from.seq > 0 && found.log.sum.items() > 0;
        begins_after = (is_later && found.log.chain.is_none()).then(|| manifest.chain.from.clone());
        partial = self::partial(manifest, found.truncated.as_ref());
    } else {
        for part in Part::ALL {
            checks.extend(found.unreadable.remove(&part).map(|it| it.check(part.as_str(), none)));
        }
        for faults in [&mut found.log.unreadable, &mut found.log.order] {
            if !faults.is_empty() {
                checks.push(std::mem::take(faults).check(Part::CanonicalEvents.as_str(), none));
            }
        }
        if !found.envelopes.unreadable.is_empty() {
            let faults = std::mem::take(&mut found.envelopes.unreadable);
            checks.push(faults.check(Part::RawEvents.as_str(), none));
        }
        checks.push(not_checked("sums", "there is no sound manifest to hold the parts against"));
    }
    checks.push(not_checked(
        "decodedPayload",
        "what was made of each payload is as exported; it is not derived anew from the envelopes",
    ));
    let run = found.run.as_ref();
    Report {
        sound: checks.iter().all(|check| check.result != Verdict::Fault),
        shape: shape.to_string(),
        run_id: run.map(|run| run.id),
        session_id: run.and_then(|run| run.runtime_session_id.clone()),
        status: run.map(|run| run.status),
        exported_at: found.exported_at.clone(),
        log_id: manifest.as_ref().map(|manifest| manifest.log_id.clone()),
        canonical_events: found.log.sum.items(),
        raw_events: found.envelopes.sum.items(),
        artifacts: found.artifacts.items(),
        latest_seq: manifest.as_ref().map(|manifest| manifest.log.seq),
        hash: found.log.chain.map(|hash| hash.to_string()),
        partial,
        checks,
        begins_after,
    }
}

fn none() -> String {
    String::new()
}

fn not_checked(check: &'static str, why: &str) -> Check {
    Check { check, result: Verdict::NotChecked, found: why.to_owned() }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn layout(found: &Found, shape: Shape, broken: Option<ReadFault>) -> Check {
    let mut faults = Faults::default();
    if let Some(fault) = broken {
        let name = match &fault {
            ReadFault::Cut { place: Place::Item(Part::CanonicalEvents, _), .. }
            | ReadFault::Layout { place: Place::Item(Part::CanonicalEvents, _), .. } => {
                format!(" ({})", found.log.next_name())
            }
            ReadFault::Io(_) | ReadFault::Cut { .. } | ReadFault::Layout { .. } => String::new(),
        };
        faults.add(format!("{fault}{name}"));
    }
    faults.check("layout", || format!("{shape}, every part in its place"))
}

fn manifest(manifest: Option<&Result<Manifest, ManifestFault>>) -> Check {
    let mut faults = Faults::default();
    match manifest {
        None => faults.add("it is missing".to_owned()),
        Some(Err(fault)) => faults.add(fault.to_string()),
        Some(Ok(_)) => {}
    }
    faults.check("manifest", || "its own sum holds".to_owned())
}

/// A part's sum, and whether its text is what belongs there.
fn part(found: &mut Found, part: Part, manifest: &Manifest) -> Option<Check> {
    let mut faults = found.unreadable.remove(&part).unwrap_or_default();
    let list = match part {
        Part::Artifacts => Some(&found.artifacts),
        Part::CanonicalEvents => {
            faults = std::mem::take(&mut found.log.unreadable);
            Some(&found.log.sum)
        }
        Part::RawEvents => {
            faults = std::mem::take(&mut found.envelopes.unreadable);
            Some(&found.envelopes.sum)
        }
        Part::Run
        | Part::Session
        | Part::Projection
        | Part::Metrics
        | Part::ExportedAt
        | Part::Truncated => None,
    };
    let stated = manifest.parts.of(part);
    let sum = match list {
        Some(list) => Some(list.clone().finish_list()),
        None => found.values.get(&part).cloned(),
    };
    match (&sum, stated) {
        (None, None) => return None,
        (Some(_), None) => faults.add("the manifest does not know it".to_owned()),
        (None, Some(_)) => faults.add("it is missing".to_owned()),
        (Some(sum), Some(stated)) if !is_same(sum, stated) => {
            let place = list.map(|list| changes(found, part, list, stated));
            let what = format!("it was changed: its sha256 is {}", sum.sha256);
            faults.add(place.unwrap_or(what));
        }
        (Some(_), Some(_)) => {}
    }
    Some(faults.check(part.as_str(), || match sum {
        Some(Sum { items: Some(1), bytes, .. }) => format!("1 item, {bytes} bytes"),
        Some(Sum { items: Some(items), bytes, .. }) => format!("{items} items, {bytes} bytes"),
        Some(Sum { bytes, .. }) => format!("{bytes} bytes"),
        None => String::new(),
    }))
}

/// A list's marks say where it was changed, so they need not be there.
fn is_same(sum: &Sum, stated: &Sum) -> bool {
    let marks = stated.marks.is_none() || sum.marks == stated.marks;
    marks && (&sum.sha256, sum.bytes, sum.items) == (&stated.sha256, stated.bytes, stated.items)
}

/// Where a list differs from what was exported.
fn changes(found: &Found, part: Part, list: &PartHash, stated: &Sum) -> String {
    // As the events are numbered, if they are.
    let first = found.log.first.filter(|_| part == Part::CanonicalEvents);
    let name = |index: usize| {
        let item = format!("{}[{index}]", part.as_str());
        let seq = first.zip(i64::try_from(index).ok()).map(|(first, index)| first + index);
        seq.map_or(item.clone(), |seq| format!("event {seq}, {item}"))
    };
    let number = |count: usize| match count {
        1 => "one item".to_owned(),
        count => format!("{count} items"),
    };
    match difference(list, stated) {
        Difference::Changed { first, in_all } => {
            let names: Vec<String> = first.into_iter().map(name).collect();
            let more = match in_all.checked_sub(names.len()) {
                None | Some(0) => String::new(),
                Some(more) => format!(", and {more} more"),
            };
            let verb = if in_all == 1 { "was" } else { "were" };
            format!("{}{more} {verb} changed", names.join("; "))
        }
        Difference::Missing { at, count } => format!("{} missing at {}", number(count), name(at)),
        Difference::Inserted { at, count } => {
            format!("{} put in at {}", number(count), name(at))
        }
        Difference::From(at) => format!("from {} on it was changed", name(at)),
        Difference::Unknown => "it was changed, and which item it is cannot be told".to_owned(),
    }
}

fn run_id(found: &mut Found, stated: RunId) -> Check {
    let mut faults = std::mem::take(&mut found.foreign);
    match &found.run {
        Some(run) if run.id != stated => {
            faults.add(format!("the manifest is of run {stated}, and the run is {}", run.id));
        }
        Some(_) | None => {}
    }
    for more in [&mut found.log.foreign, &mut found.envelopes.foreign] {
        if !more.is_empty() {
            faults.add(std::mem::take(more).check("", none).found);
        }
    }
    faults.check("runId", || format!("{stated} everywhere"))
}

fn order(found: &mut Found, manifest: &Manifest) -> Check {
    let mut faults = std::mem::take(&mut found.log.order);
    let (from, to) = (manifest.chain.from.seq, manifest.chain.to.seq);
    let (first, last) = (found.log.first, found.log.last);
    if first.is_some_and(|first| first != from + 1) || last.is_some_and(|last| last != to) {
        let [first, last] = [first, last].map(Option::unwrap_or_default);
        faults.add(format!(
            "the events are {first} to {last}, and the manifest says {} to {to}",
            from + 1
        ));
    }
    faults.check("seq", || match first.zip(last) {
        Some((first, last)) => format!("{first} to {last}, none missing"),
        None => "there are no events".to_owned(),
    })
}

fn chain(found: &Found, manifest: &Manifest) -> Check {
    let (from, to) = (&manifest.chain.from, &manifest.chain.to);
    let mut faults = Faults::default();
    if found.log.sum.items() == 0 {
        if from != to {
            faults.add("it goes on in the manifest, and there are no events".to_owned());
        }
        return faults.check("chain", || "there are no events".to_owned());
    }
    match found.log.chain {
        Some(chain) if chain.to_string() != to.hash => faults.add(format!(
            "after event {} it is {chain}, and the manifest says {}",
            found.log.last.unwrap_or_default(),
            to.hash
        )),
        Some(_) => {}
        None if from.seq > 0 && found.log.first == Some(from.seq + 1) => {
            return not_checked("chain", "it begins after the log's beginning: give a file");
        }
        None => faults.add("it cannot be followed".to_owned()),
    }
    faults.check("chain", || format!("{} after event {}", to.hash, to.seq))
}

/// Whether as much is there as was asked for, and what is not is said to be cut.
fn extent(found: &Found, manifest: &Manifest) -> Check {
    let Manifest { scope, chain, log, .. } = manifest;
    let mut faults = Faults::default();
    let cut = found.truncated.as_ref().and_then(|cut| cut.canonical_events.as_ref());
    match cut {
        Some(cut)
            if (cut.next_after_seq, cut.remaining) != (chain.to.seq, log.seq - chain.to.seq) =>
        {
            faults.add("truncated does not tell how much is missing".to_owned());
        }
        None if scope.canonical_events && chain.to.seq < log.seq => faults.add(format!(
            "the log goes on to event {}, the bundle ends at {}, and nothing says so",
            log.seq, chain.to.seq
        )),
        Some(_) | None => {}
    }
    if scope.canonical_events && chain.to.seq == log.seq && chain.to.hash != log.hash {
        faults.add("the chain and the log end with different hashes".to_owned());
    }
    for (asked, items, what) in [
        (scope.canonical_events, found.log.sum.items(), "canonical events"),
        (scope.raw_events, found.envelopes.sum.items(), "raw envelopes"),
    ] {
        if !asked && items > 0 {
            faults.add(format!("{what} were not asked for, and there are {items}"));
        }
    }
    if let Some(run) = &found.run
        && run.last_event_seq != log.seq
    {
        faults.add(format!(
            "the run's log ends at event {}, and the manifest says {}",
            run.last_event_seq, log.seq
        ));
    }
    faults.check("extent", || match partial(manifest, found.truncated.as_ref()) {
        None => format!("the whole log, up to event {}", log.seq),
        Some(partial) => partial,
    })
}

fn partial(manifest: &Manifest, truncated: Option<&Truncated>) -> Option<String> {
    let Manifest { scope, chain, log, .. } = manifest;
    let mut parts = Vec::new();
    if !scope.canonical_events {
        parts.push("it has no canonical events".to_owned());
    } else {
        if chain.from.seq > 0 {
            parts.push(format!("its events begin after event {}", chain.from.seq));
        }
        if chain.to.seq < log.seq {
            let (first, last) = (chain.to.seq + 1, log.seq);
            parts.push(format!("events {first} to {last} were cut off"));
        }
    }
    if scope.raw_events && (scope.after_ordinal > 0 || scope.after_signal.is_some()) {
        parts.push("its raw envelopes begin in the middle".to_owned());
    }
    if let Some(cut) = truncated.and_then(|cut| cut.raw_events.as_ref()) {
        parts.push(format!("{} raw envelopes were cut off", cut.remaining));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn ordinals(found: &mut Found, manifest: &Manifest) -> Check {
    let Manifest { scope, ordinals, gaps, .. } = manifest;
    // Those of what was not delivered left no hole.
    let holes = |gap: &&Gap| gap.reason.as_deref() != Some(NOT_DELIVERED);
    let gaps: Vec<Gap> = gaps.iter().filter(holes).cloned().collect();
    let mut faults = std::mem::take(&mut found.envelopes.order);
    let raw = &found.envelopes;
    let is_cut = found.truncated.as_ref().is_some_and(|cut| cut.raw_events.is_some());
    let whole = scope.raw_events && !is_cut && scope.after_signal.is_none();
    if ordinals.recorded == 0 && raw.of_session == 0 {
        return not_checked("ordinals", "no envelope of the session was recorded there");
    }
    let cursor = (scope.after_ordinal, ordinals.cursor);
    if scope.raw_events {
        for (from, to) in raw.missing(&gaps, cursor, whole) {
            faults.add(format!("envelopes {from} to {to} are missing, and nothing says so"));
        }
    }
    let stated = (ordinals.first, ordinals.last, ordinals.recorded);
    if whole && scope.after_ordinal == 0 && stated != (raw.first, raw.last, raw.of_session) {
        faults.add(format!(
            "{} envelopes of the session are there, and the manifest says {}",
            raw.of_session, ordinals.recorded
        ));
    }
    let told = envelopes::told(&gaps, ordinals.cursor);
    if ordinals.recorded.saturating_add(told) < ordinals.cursor {
        faults.add(format!(
            "of {} accepted envelopes {} are recorded and {told} are known to be missing",
            ordinals.cursor, ordinals.recorded
        ));
    }
    faults.check("ordinals", || {
        let there = if scope.raw_events { "here" } else { "not in the bundle" };
        format!(
            "{} of {} accepted envelopes recorded ({there}), {told} in recorded gaps",
            ordinals.recorded, ordinals.cursor
        )
    })
}

fn gaps(found: &Found, manifest: &Manifest) -> Check {
    let stated: Vec<_> =
        manifest.gaps.iter().map(|gap| (gap.from_ordinal, gap.to_ordinal)).collect();
    if found.log.state.is_none() || found.log.last != Some(manifest.log.seq) {
        return not_checked("gaps", "the bundle does not have the whole log");
    }
    let mut faults = Faults::default();
    if stated != found.log.gaps {
        faults.add("the manifest's gaps are not those that the events tell of".to_owned());
    }
    let signals = manifest.signal_gaps.len();
    faults.check("gaps", || {
        format!("{} in the session, {signals} in the watch over signals", stated.len())
    })
}

fn state(found: &Found, manifest: &Manifest) -> Check {
    let Some(folded) = &found.log.state else {
        return not_checked("state", "the bundle does not have the whole log");
    };
    if found.log.last != Some(manifest.log.seq) {
        return not_checked("state", "the bundle does not have the whole log");
    }
    let Some(exported) = &found.state else {
        return not_checked("state", "there is no projection that this version can read");
    };
    let mut faults = Faults::default();
    let [folded, exported] = [folded, exported].map(|state| serde_json::to_value(state).ok());
    if folded != exported {
        faults.add("the projection is not what the events fold to".to_owned());
    }
    if let (Some(run), Some(state)) = (&found.run, &found.state)
        && run.status != state.run.status
    {
        faults.add(format!("the run is {}, its state says {}", run.status, state.run.status));
    }
    faults.check("state", || "the projection is what the events fold to".to_owned())
}

fn figures(found: &Found, manifest: &Manifest) -> Check {
    let (Some(counted), Some(exported)) = (&found.log.metrics, &found.metrics) else {
        return not_checked("figures", "the bundle does not have the whole log, or no metrics");
    };
    if found.log.last != Some(manifest.log.seq) {
        return not_checked("figures", "the bundle does not have the whole log");
    }
    let mut faults = Faults::default();
    // What a call cost depends on the prices there.
    let without_cost = |metrics: &RunMetrics| RunMetrics {
        estimated_cost_usd: 0.0,
        ended: false,
        ..metrics.clone()
    };
    if without_cost(counted) != without_cost(exported) {
        faults.add("the metrics are not what the events count up to".to_owned());
    }
    faults.check("figures", || {
        "the metrics are what the events count up to (costs are as exported)".to_owned()
    })
}

fn end(found: &Found, manifest: &Manifest) -> Check {
    let mut faults = Faults::default();
    let wanted = End {
        canonical_events: found.log.sum.items(),
        raw_events: found.envelopes.sum.items(),
        hash: manifest.chain.to.hash.clone(),
        complete: found.truncated.is_none(),
        truncated: found.truncated.clone(),
    };
    match &found.end {
        None => faults.add("the last line is missing: the bundle is cut".to_owned()),
        Some(text) if *text != json(&wanted) => {
            faults.add("the last line does not say what is there".to_owned());
        }
        Some(_) => {}
    }
    faults.check("end", || "the last line counts what is there".to_owned())
}

fn known_hash(found: &Found, manifest: &Manifest, hash: &str) -> Check {
    let mut faults = Faults::default();
    let is_end = found.log.last == Some(manifest.log.seq);
    match (parse_hash(hash.trim()), found.log.chain.filter(|_| is_end)) {
        (None, _) => faults.add(format!("{hash} is not a SHA-256 in hexadecimal digits")),
        (Some(_), None) => faults.add("the bundle does not reach the log's end".to_owned()),
        (Some(known), Some(chain)) if known != chain => {
            faults.add(format!("{known} is not the head of this log, which is {chain}"));
        }
        (Some(_), Some(_)) => {}
    }
    faults.check("knownHash", || "it is the head of this log".to_owned())
}
