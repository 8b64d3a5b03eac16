//! Keys, roles and the sentences that clients know (spec 2.4).

use super::*;

fn keys(text: &str) -> ApiKeys {
    ApiKeys::parse(text).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn refusal(keys: &ApiKeys, header: Option<&str>) -> String {
    keys.identify(header).unwrap_err().to_string()
}

#[test]
fn a_key_is_taken_with_and_without_bearer() {
    let keys = keys("alpha, ops:operate:beta");
    for header in ["Bearer alpha", "bearer alpha", "alpha"] {
        let caller = keys.identify(Some(header)).unwrap();
        assert_eq!((caller.name.as_str(), caller.role), ("key-1", Role::Admin), "{header}");
    }
    let caller = keys.identify(Some("Bearer beta")).unwrap();
    assert_eq!((caller.name.as_str(), caller.role), ("ops", Role::Operate));
}

#[test]
fn each_refusal_has_its_sentence() {
    let keys = keys("alpha");
    assert_eq!(refusal(&keys, None), "Missing Authorization header");
    assert_eq!(refusal(&keys, Some("Bearer")), "Empty authorization token");
    assert_eq!(refusal(&keys, Some("Bearer ")), "Empty authorization token");
    assert_eq!(refusal(&keys, Some("Bearer alph")), "Invalid authorization token");
    assert_eq!(refusal(&keys, Some("Bearer alpha ")), "Invalid authorization token");
    assert_eq!(refusal(&keys, Some("Béarer alpha")), "Invalid authorization token");
}

#[test]
fn without_keys_nobody_needs_one() {
    let caller = ApiKeys::default().identify(None).unwrap();
    assert_eq!(caller.role, Role::Admin);
}

#[test]
fn a_key_may_hold_colons_after_its_name_and_role() {
    assert!(keys("ui:read:a:b").identify(Some("a:b")).is_ok());
}

#[test]
fn a_bad_list_is_refused_without_quoting_it() {
    for text in [
        "name:boss:hunter2",
        "name:hunter2",
        ":read:hunter2",
        "name:read:",
        "x,x",
        "a:read:x,a:read:y",
    ] {
        let faults = ApiKeys::parse(text).err().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(!faults.join(" ").contains("hunter2"), "{faults:?}");
    }
}

#[test]
fn a_reader_may_only_read() {
    let caller = |role| Caller { name: "ui".into(), role, key: KeyMark::NONE };
    let reader = caller(Role::Read);
    assert!(allow(&reader, &Method::GET).is_ok());
    assert!(matches!(allow(&reader, &Method::POST), Err(ApiError::ReadOnlyKey)));
    let operator = caller(Role::Operate);
    assert!(allow(&operator, &Method::POST).is_ok());
}

#[test]
fn only_an_admin_may_delete() {
    let may =
        |role| allow(&Caller { name: "one".into(), role, key: KeyMark::NONE }, &Method::DELETE);
    assert!(matches!(may(Role::Read), Err(ApiError::ReadOnlyKey)));
    assert!(matches!(may(Role::Operate), Err(ApiError::AdminOnly)));
    assert!(may(Role::Admin).is_ok());
}

#[test]
fn a_ticket_is_as_good_as_the_key_that_asked_for_it() {
    let both = keys("ops:operate:alpha,ui:read:beta");
    let caller = both.identify(Some("beta")).unwrap();
    let mark = caller.key.as_bytes();

    assert_eq!(both.of_ticket(mark), Some(caller.clone()));
    assert_eq!(
        keys("console:admin:beta").of_ticket(mark).map(|it| it.name),
        Some("console".into())
    );
    assert_eq!(keys("ops:operate:alpha").of_ticket(mark), None);
    assert_eq!(ApiKeys::default().of_ticket(mark), None);
    let anonymous = ApiKeys::default().identify(None).unwrap();
    assert!(ApiKeys::default().of_ticket(anonymous.key.as_bytes()).is_some());
    assert_eq!(both.of_ticket(anonymous.key.as_bytes()), None);
    assert!(!both.0.iter().any(|key| key.hash == mark), "a mark is not a key's hash");
}
