//! Whatever arrives, something that can be stored comes out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::CanonicalEvent;
use crate::id::RunId;

const MODES: &[&str] = &[
    "",
    "macp.mode.decision.v1",
    "macp.mode.proposal.v1",
    "macp.mode.task.v1",
    "macp.mode.handoff.v1",
    "macp.mode.quorum.v1",
    "ext.multi_round.v1",
    "ext.other.v1",
];
const TYPES: &[&str] = &[
    "SessionStart",
    "Commitment",
    "Signal",
    "Progress",
    "Proposal",
    "Evaluation",
    "Objection",
    "Vote",
    "CounterProposal",
    "Accept",
    "Reject",
    "Withdraw",
    "TaskRequest",
    "TaskUpdate",
    "TaskComplete",
    "TaskFail",
    "HandoffOffer",
    "HandoffAccept",
    "ApprovalRequest",
    "Approve",
    "Abstain",
    "Contribute",
    "PolicyResolved",
    "PolicyDenied",
    "ToolCall",
    "Whatever",
];

fn json_value() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("proposalId".to_owned()),
        Just("tokenUsage".to_owned()),
        Just("metadata".to_owned()),
        Just("promptTokens".to_owned()),
        Just("data".to_owned()),
        Just("progress".to_owned()),
        Just("policyDenied".to_owned()),
        ".{0,4}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| json!(float)),
        ".{0,12}".prop_map(Value::from),
        Just(json!("\0")),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        json_value().prop_map(|value| value.to_string().into_bytes()),
        (0_usize..400)
            .prop_map(|depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth)).into_bytes()),
        (0_usize..400).prop_map(|depth| {
            format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth)).into_bytes()
        }),
    ]
}

prop_compose! {
    fn arbitrary_envelope()(
        mode in prop::sample::select(MODES),
        message_type in prop_oneof![
            prop::sample::select(TYPES).prop_map(str::to_owned), ".{0,8}",
        ],
        message_id in "(\\PC|\0){0,6}",
        session_id in "(\\PC|\0){0,6}",
        sender in "(\\PC|\0){0,3}",
        timestamp_unix_ms in prop_oneof![
            any::<i64>(), 1_763_000_000_000_i64..1_764_000_000_000,
        ],
        payload in payload(),
    ) -> Envelope {
        Envelope {
            macp_version: "1.0".to_owned(),
            mode: mode.to_owned(),
            message_type,
            message_id,
            session_id,
            sender,
            timestamp_unix_ms,
            payload,
            sanitized: false,
        }
        .sanitize()
    }
}

proptest! {
    #[test]
    fn any_envelope_becomes_events_that_can_be_stored_and_read_again(
        envelopes in prop::collection::vec((arbitrary_envelope(), any::<bool>()), 1..8),
    ) {
        let received_at = time::from_unix_ms(1_763_500_000_000).unwrap();
        let mut normalizer = Normalizer::new([], None);
        let mut again = Normalizer::new([], None);
        let mut last = None;
        for (envelope, is_signal) in &envelopes {
            let (drafts, repeated) = if *is_signal {
                (
                    normalizer.signal(envelope, false, received_at),
                    again.signal(envelope, false, received_at),
                )
            } else {
                (normalizer.envelope(envelope, received_at), again.envelope(envelope, received_at))
            };
            correlate(envelope);
            prop_assert_eq!(&drafts, &repeated);
            let count = |prefix: &str| {
                drafts.iter().filter(|draft| draft.event_type.as_str().starts_with(prefix)).count()
            };
            prop_assert!(count("policy.") <= 1);
            prop_assert!(count("progress.") <= 1 && count("llm.") <= 1);
            for draft in drafts {
                prop_assert!(draft.ts <= received_at);
                prop_assert!(Some(draft.ts) >= last);
                last = Some(draft.ts);
                let event = draft.into_event(RunId(uuid::Uuid::nil()), 1, received_at);
                let text = event.encode();
                prop_assert!(!text.contains('\0') && !text.contains("\\u0000"));
                let read: CanonicalEvent = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(read, event);
            }
        }
    }
}
