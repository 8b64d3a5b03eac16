//! The manifest's own sum, and the sums of parts.

use control_plane_domain::time;

use super::*;

fn manifest() -> Manifest {
    let sum = PartHash::of(b"null");
    let link = Link::new(3, ChainHash::EMPTY.then("x"));
    Manifest {
        format: FORMAT.to_owned(),
        run_id: RunId(uuid::Uuid::nil()),
        log_id: "log".to_owned(),
        scope: Scope {
            canonical_events: true,
            raw_events: false,
            after_seq: 0,
            after_ordinal: 0,
            after_signal: None,
        },
        parts: Sums {
            run: sum.clone(),
            session: sum.clone(),
            projection: sum.clone(),
            metrics: sum.clone(),
            artifacts: PartHash::default().finish_list(),
            canonical_events: PartHash::default().finish_list(),
            raw_events: PartHash::default().finish_list(),
            exported_at: sum,
            truncated: None,
        },
        chain: Chain { from: Link::new(0, ChainHash::EMPTY), to: link.clone() },
        log: link,
        ordinals: Ordinals { first: Some(1), last: Some(2), recorded: 2, cursor: 2 },
        gaps: vec![Gap { from_ordinal: 3, to_ordinal: None, reason: None }],
        signal_gaps: vec![SignalGap {
            from: time::from_unix_ms(1_795_000_000_000).unwrap(),
            to: None,
            reason: "away".to_owned(),
        }],
    }
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let text = manifest().encode();

    assert!(text.starts_with(r#"{"format":"macp-run-bundle/1","runId":"#), "{text}");
    assert_eq!(Manifest::decode(&text), Ok(manifest()));
    let (fields, _) = text.rsplit_once(",\"sha256\":").unwrap();
    assert!(text.ends_with(&format!("{}\"}}", hex::encode(Sha256::digest(fields)))));
}

#[test]
fn any_changed_character_of_a_manifest_is_noticed() {
    let text = manifest().encode();
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        assert!(Manifest::decode(&changed).is_err(), "{changed}");
    }
}

#[test]
fn a_manifest_of_another_format_is_not_guessed_at() {
    let other = Manifest { format: "macp-run-bundle/2".to_owned(), ..manifest() };
    let fault = Manifest::decode(&other.encode()).unwrap_err();
    assert_eq!(fault.to_string(), "the manifest cannot be read: its format is macp-run-bundle/2");
}

#[test]
fn the_sum_of_a_list_tells_its_items_apart() {
    let sum = |items: &[&str]| {
        let mut hash = PartHash::default();
        items.iter().for_each(|item| hash.item(item.as_bytes()));
        hash.finish_list()
    };
    let expected = hex::encode(Sha256::digest("{}\n[1]\n"));
    let marks = Some("RBNvCAqe".to_owned());
    assert_eq!(sum(&["{}", "[1]"]), Sum { sha256: expected, bytes: 7, items: Some(2), marks });
    assert_ne!(sum(&["12", "3"]), sum(&["1", "23"]));
}
