//! Bundles that were changed, cut or made up: each is found, and what it is is named.

mod sample;

use std::io::Write as _;

use control_plane_domain::RunId;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::super::format::{Gap, Truncated};
use super::*;
use crate::bundle::format::EventsCut;
use crate::bundle::write::Shape;
use sample::Sample;

const SHAPES: [Shape; 2] = [Shape::Json, Shape::Lines];

fn report(bundle: &[u8]) -> Report {
    report_with(bundle, None)
}

fn report_with(bundle: &[u8], known_hash: Option<String>) -> Report {
    verify(bundle, &Options { known_hash, at_most: None }).unwrap().report
}

/// The bundle with the first of `old` replaced.
fn changed(bundle: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bundle).unwrap();
    assert!(text.contains(old), "{old} is not in it");
    text.replacen(old, new, 1).into_bytes()
}

fn is_said(bundle: &[u8], expected: &str) {
    let faults = report(bundle).faults();
    assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:#?}");
}

#[test]
fn a_bundle_as_it_was_written_is_sound() {
    for shape in SHAPES {
        let sample = Sample::new();

        let report = report(&sample.bundle(shape));

        assert_eq!(report.faults(), Vec::<String>::new());
        assert!(report.sound);
        assert_eq!(report.partial, None);
        assert_eq!(report.hash, Some(sample.chain().to_string()));
        let counts = (report.canonical_events, report.raw_events, report.artifacts);
        assert_eq!(counts, (8, 4, 2));
        let open: Vec<&str> = report
            .checks
            .iter()
            .filter(|check| check.result == Verdict::NotChecked)
            .map(|check| check.check)
            .collect();
        assert_eq!(open, ["decodedPayload"]);
    }
}

#[test]
fn a_changed_part_is_named() {
    // The timeline has these numbers, too, but not the run's id before them.
    let of_run =
        |seq: &str| format!(r#""runId":"{}","seq":{seq},"#, RunId(uuid::Uuid::from_u128(7)));
    for shape in SHAPES {
        let bundle = Sample::new().bundle(shape);
        for (old, new, expected) in [
            (r#""runtimeKind":"rust""#, r#""runtimeKind":"dust""#, "run: it was changed"),
            (r#""modeVersion":"1.0.0""#, r#""modeVersion":"1.0.1""#, "session: it was changed"),
            (r#""totalEvents":8"#, r#""totalEvents":9"#, "projection: it was changed"),
            (r#""eventCount":8"#, r#""eventCount":7"#, "metrics: it was changed"),
            (r#""label":"second""#, r#""label":"Second""#, "artifacts: artifacts[1] was changed"),
            (
                r#""note":"event 5""#,
                r#""note":"event 6""#,
                "canonicalEvents: event 5, canonicalEvents[4] was changed",
            ),
            (&of_run("7"), &of_run("8"), "event 7, canonicalEvents[6] was changed"),
            (&of_run("1"), &of_run("9"), "canonicalEvents[0] was changed"),
            (r#""messageId":"m6""#, r#""messageId":"m5""#, "rawEvents: rawEvents[2] was changed"),
            (
                r#""exportedAt":"2026-11-28T12"#,
                r#""exportedAt":"2026-11-28T13"#,
                "exportedAt: it was changed",
            ),
            (r#""logId":"the log""#, r#""logId":"the lag""#, "manifest: the manifest's sha256 is"),
            (r#","metrics":"#, r#","metricz":"#, "at metrics"),
        ] {
            is_said(&changed(&bundle, old, new), expected);
        }
    }
}

#[test]
fn events_that_are_gone_put_in_or_moved_are_named() {
    for shape in SHAPES {
        let sample = Sample::new();
        let of = |order: &[usize]| {
            // The manifest is that of the bundle as it was.
            let (whole, mut other) = (sample.bundle(shape), sample.clone());
            other.events = order.iter().map(|index| sample.events[*index].clone()).collect();
            let other = other.bundle(shape);
            let place = |bundle: &[u8]| {
                let text = String::from_utf8(bundle.to_vec()).unwrap();
                text.find(r#""format":"macp-run"#).unwrap()
            };
            [&other[..place(&other)], &whole[place(&whole)..]].concat()
        };
        is_said(&of(&[0, 1, 3, 4, 5, 6, 7]), "one item missing at event 3, canonicalEvents[2]");
        is_said(&of(&[0, 1, 3, 4, 5, 6, 7]), "seq: after event 2 comes 4");
        is_said(&of(&[0, 1, 2, 3, 4]), "3 items missing at event 6");
        is_said(&of(&[0, 1, 1, 2, 3, 4, 5, 6, 7]), "one item put in at event 3");
        is_said(&of(&[0, 2, 1, 3, 4, 5, 6, 7]), "event 2, canonicalEvents[1]; event 3, ");
    }
}

#[test]
fn a_cut_bundle_is_said_to_be_cut_and_where() {
    let text = |shape| String::from_utf8(Sample::new().bundle(shape)).unwrap();
    let json = text(Shape::Json);
    let lines = text(Shape::Lines);
    let before = |text: &str, place: &str| text.as_bytes()[..text.find(place).unwrap()].to_vec();

    is_said(&before(&lines, "{\"kind\":\"end\""), "layout: the bundle is cut");
    is_said(&before(&lines, "{\"kind\":\"end\""), "at the end line");
    is_said(&lines.as_bytes()[..lines.len() - 1], "at the end line");
    is_said(&before(&lines, "\"note\":\"event 5\""), "event 5, canonicalEvents[4]");
    is_said(&before(&json, "\"note\":\"event 5\""), "event 5, canonicalEvents[4]");
    is_said(&before(&json, "\"messageId\":\"m6\""), "at rawEvents[2]");
    is_said(&json.as_bytes()[..json.len() - 1], "the bundle is cut");
    is_said(b"", "the bundle is cut");
    is_said(b"{}", "layout: the layout is broken at byte 1");
    for whole in [&json, &lines] {
        is_said(format!("{whole}\n").as_bytes(), "something comes after the end");
    }
    let end = lines.replacen("\"rawEvents\":4,\"hash\"", "\"rawEvents\":5,\"hash\"", 1);
    is_said(end.as_bytes(), "end: the last line does not say what is there");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_is_found(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        how in 0..4,
        lines in any::<bool>(),
    ) {
        let bundle = Sample::new().bundle(if lines { Shape::Lines } else { Shape::Json });
        let at = place.index(bundle.len());
        let mut other = bundle.clone();
        match how {
            0 => other[at] = byte,
            1 => other.insert(at, byte),
            2 => drop(other.remove(at)),
            _ => other.truncate(at),
        }
        prop_assume!(other != bundle);

        let report = report(&other);

        prop_assert!(!report.sound);
        prop_assert!(report.faults().iter().all(|fault| fault.len() > 12), "{:?}", report.faults());
    }
}

#[test]
fn a_bundle_that_was_made_up_is_found_by_what_it_says() {
    for shape in SHAPES {
        let said = |change: &dyn Fn(&mut Sample), expected: &str| {
            let mut sample = Sample::new();
            change(&mut sample);
            is_said(&sample.bundle(shape), expected);
        };
        said(&|it| drop(it.events.remove(3)), "seq: after event 3 comes 5");
        said(&|it| it.foreign_event(2), "event 3, canonicalEvents[2] belongs to run");
        said(&|it| it.raw[1].run_id = RunId::random(), "rawEvents[1] belongs to run");
        said(&|it| it.artifacts[0].run_id = RunId::random(), "artifacts[0] belongs to");
        said(&|it| it.metrics.message_count += 1, "figures: the metrics are not");
        said(&|it| it.state.timeline.total_events += 1, "state: the projection is not");
        said(&|it| it.run.last_event_seq += 1, "extent: the run's log ends at event 9");
        said(&|it| drop(it.raw.remove(0)), "envelopes 1 to 1 are missing");
        said(&|it| it.raw.swap(0, 1), "rawEvents[1] has ordinal 1 after 2");
        said(&|it| it.gaps.clear(), "gaps: the manifest's gaps are not");
        said(&|it| it.ordinals.recorded = 2, "the manifest says 2");
        said(&|it| it.cut_at(6), "the log goes on to event 8, the bundle ends at 6");
        let open = Gap { from_ordinal: 3, to_ordinal: None, reason: None };
        said(&|it| it.gaps = vec![open.clone()], "gaps: the manifest's gaps are not");
    }
}

#[test]
fn a_known_hash_is_held_against_the_end_of_the_log() {
    let sample = Sample::new();
    let bundle = sample.bundle(Shape::Json);
    let known = sample.chain().to_string();
    let digits = known.strip_prefix("sha256:").unwrap().to_owned();

    assert!(report_with(&bundle, Some(known)).sound);
    assert!(report_with(&bundle, Some(digits.to_uppercase())).sound);
    for wrong in ["0".repeat(64), "x".to_owned()] {
        assert!(!report_with(&bundle, Some(wrong)).sound);
    }
    let mut cut = sample.clone();
    cut.cut_at(6);
    cut.truncated = Some(Truncated {
        canonical_events: Some(EventsCut { next_after_seq: 6, remaining: 2 }),
        raw_events: None,
    });
    let cut = cut.bundle(Shape::Json);
    assert!(report(&cut).sound);
    assert_eq!(report(&cut).partial.as_deref(), Some("events 7 to 8 were cut off"));
    assert!(!report_with(&cut, Some(digits)).sound, "its end is not there to be proven");
}

#[test]
fn a_bundle_that_goes_on_with_a_log_is_read_twice() {
    for shape in SHAPES {
        let mut sample = Sample::new();
        sample.begin_after(3);
        let bundle = sample.bundle(shape);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bundle).unwrap();

        let once = report(&bundle);
        let twice = verify_file(&mut file, &Options::default()).unwrap().report;

        let chain = |report: &Report| {
            report.checks.iter().find(|check| check.check == "chain").unwrap().result
        };
        assert_eq!((chain(&once), chain(&twice)), (Verdict::NotChecked, Verdict::Ok));
        assert!(once.sound && twice.sound, "{:?}", twice.faults());
        assert_eq!(twice.hash, Some(sample.chain().to_string()));
        assert_eq!(twice.partial.as_deref(), Some("its events begin after event 3"));
    }
}

#[test]
fn a_compressed_bundle_is_read_and_its_damage_is_found() {
    let bundle = Sample::new().bundle(Shape::Lines);
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&bundle).unwrap();
    let packed = packed.finish().unwrap();
    let mut damaged = packed.clone();
    damaged[packed.len() / 2] ^= 0x10;

    assert!(report(&packed).sound);
    assert!(!report(&damaged).sound);
    is_said(&packed[..packed.len() / 2], "the bundle is cut");
    let long = verify(&packed[..], &Options { known_hash: None, at_most: Some(1000) });
    assert_eq!(long.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}
