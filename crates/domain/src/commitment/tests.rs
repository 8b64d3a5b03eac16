//! The hash covers every field and nothing else. (The runtime's published vectors are run in the
//! tests of `insights`.)

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::payload;

fn commitment() -> Commitment {
    Commitment {
        commitment_id: "c1".to_owned(),
        action: "deploy".to_owned(),
        authority_scope: "team".to_owned(),
        reason: "all agree".to_owned(),
        mode_version: "1.0.0".to_owned(),
        policy_version: "policy.default".to_owned(),
        configuration_version: "config.default".to_owned(),
        outcome_positive: true,
        supersedes: Some(Supersedes {
            session_id: "before".to_owned(),
            commitment_hash: format!("sha256:{}", "0".repeat(64)),
        }),
    }
}

/// The bytes as another encoder writes them.
fn wire(commitment: &Commitment) -> Vec<u8> {
    let mut fields = json!({
        "commitmentId": commitment.commitment_id,
        "action": commitment.action,
        "authorityScope": commitment.authority_scope,
        "reason": commitment.reason,
        "modeVersion": commitment.mode_version,
        "policyVersion": commitment.policy_version,
        "configurationVersion": commitment.configuration_version,
        "outcomePositive": commitment.outcome_positive,
    });
    if let Some(Supersedes { session_id, commitment_hash }) = &commitment.supersedes {
        fields["supersedes"] =
            json!({ "sessionId": session_id, "commitmentHash": commitment_hash });
    }
    payload::encode("macp.mode.decision.v1", "Commitment", &fields).unwrap()
}

type Edit = fn(&mut Commitment);

/// Every way to change one field.
fn edits() -> Vec<(&'static str, Edit)> {
    vec![
        ("commitment_id", |it| it.commitment_id.push('x')),
        ("action", |it| it.action.push('x')),
        ("authority_scope", |it| it.authority_scope.push('x')),
        ("reason", |it| it.reason.push('x')),
        ("mode_version", |it| it.mode_version.push('x')),
        ("policy_version", |it| it.policy_version.push('x')),
        ("configuration_version", |it| it.configuration_version.push('x')),
        ("outcome_positive", |it| it.outcome_positive = false),
        ("supersedes", |it| it.supersedes = None),
        ("an empty supersedes", |it| it.supersedes = Some(Supersedes::default())),
        ("supersedes.session_id", |it| it.supersedes.as_mut().unwrap().session_id.push('x')),
        ("supersedes.commitment_hash", |it| {
            it.supersedes.as_mut().unwrap().commitment_hash.push('x');
        }),
    ]
}

#[test]
fn a_change_of_any_field_is_another_hash() {
    let mut hashes = vec![commitment().hash()];
    for (name, edit) in edits() {
        let mut changed = commitment();
        edit(&mut changed);

        assert_eq!(verify(&wire(&changed), &hashes[0]), Check::Mismatch, "{name}");
        assert_eq!(verify(&wire(&changed), &changed.hash()), Check::Match, "{name}");
        hashes.push(changed.hash());
    }
    let count = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}

#[test]
fn a_claim_counts_only_in_its_canonical_form() {
    let (payload, hash) = (wire(&commitment()), commitment().hash());
    let digits = hash.strip_prefix("sha256:").unwrap();

    assert_eq!(digits.len(), 64);
    assert_eq!(verify(&payload, &hash), Check::Match);
    for claimed in [digits.to_owned(), hash.to_uppercase(), format!(" {hash}"), String::new()] {
        assert_eq!(verify(&payload, &claimed), Check::Mismatch, "{claimed:?}");
    }
}

#[test]
fn a_field_that_the_label_does_not_cover_leaves_no_hash() {
    let top = [wire(&commitment()), vec![10 << 3, 1]].concat();
    let nested = [wire(&Commitment::default()), vec![9 << 3 | 2, 2, 3 << 3, 1]].concat();

    assert_eq!(Commitment::from_wire(&top), Err(NotHashable::UnknownField(10)));
    assert_eq!(Commitment::from_wire(&nested), Err(NotHashable::UnknownInSupersedes(3)));
    assert_eq!(verify(&top, &commitment().hash()), Check::CannotVerify);
}

#[test]
fn what_is_no_commitment_leaves_no_hash() {
    let cases: [&[u8]; 11] = [
        &[0x0a],
        &[0x0a, 0x02, b'c'],
        &[0x0a, 0x01, 0xff],
        &[0x0b],
        &[0x00, 0x00],
        &[0x40, 0x80],
        &[0x40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0x0d, 0, 0, 0, 0],
        &[0x42, 0x00],
        &[0x4a, 0x02, 0x0a, 0x05],
        br#"{"commitmentId":"c1"}"#,
    ];
    for payload in cases {
        let read = Commitment::from_wire(payload);
        assert!(matches!(read, Err(NotHashable::Malformed(_))), "{payload:?}: {read:?}");
    }
}

#[test]
fn repeated_fields_count_as_protobuf_says() {
    let two = [wire(&commitment()), vec![0x0a, 1, b'z'], vec![0x4a, 3, 0x0a, 1, b's']].concat();

    let read = Commitment::from_wire(&two).unwrap();

    let mut wanted = Commitment { commitment_id: "z".to_owned(), ..commitment() };
    wanted.supersedes.as_mut().unwrap().session_id = "s".to_owned();
    assert_eq!(read, wanted);
}

#[test]
fn a_projection_is_complete_and_has_nothing_else() {
    let whole = serde_json::to_value(commitment()).unwrap();
    assert_eq!(Commitment::from_projection(&whole), Some(commitment()));

    for name in TEXTS.into_iter().chain(["outcome_positive"]) {
        let mut less = whole.clone();
        less.as_object_mut().unwrap().remove(name);
        assert_eq!(Commitment::from_projection(&less), None, "without {name}");
        let mut other = whole.clone();
        other[name] = json!(7);
        assert_eq!(Commitment::from_projection(&other), None, "{name} of another type");
    }
    let mut more = whole.clone();
    more["tenth"] = json!("");
    assert_eq!(Commitment::from_projection(&more), None);
    let mut more = whole.clone();
    more["supersedes"]["third"] = json!("");
    assert_eq!(Commitment::from_projection(&more), None);
    let mut none = whole;
    none["supersedes"] = Value::Null;
    assert_eq!(Commitment::from_projection(&none), None);
}

proptest! {
    #[test]
    fn the_hash_of_bytes_is_that_of_what_they_say(
        texts in prop::array::uniform7(".*"),
        outcome_positive: bool,
        reference in prop::option::of((".*", ".*")),
    ) {
        let [commitment_id, action, authority_scope, reason, mode_version, policy_version,
            configuration_version] = texts;
        let said = Commitment {
            commitment_id, action, authority_scope, reason, mode_version, policy_version,
            configuration_version, outcome_positive,
            supersedes: reference.map(|(session_id, commitment_hash)| Supersedes { session_id, commitment_hash }),
        };
        let read = Commitment::from_wire(&wire(&said)).unwrap();
        prop_assert_eq!(read.hash(), said.hash());
        prop_assert_eq!(&read, &said);
        let projection = serde_json::to_value(&read).unwrap();
        prop_assert_eq!(Commitment::from_projection(&projection), Some(said));
    }

    #[test]
    fn no_bytes_make_it_fail(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Commitment::from_wire(&payload);
    }
}
