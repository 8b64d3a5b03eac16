//! Decision receipts (`macp-receipt/1`) and the keys that a runtime publishes for them: the parts
//! that are read before anything is verified.

use std::collections::BTreeMap;

use serde_json::Value;

/// The only format that we read.
pub const FORMAT: &str = "macp-receipt/1";
/// Longest issuer and key id that are kept: with each other they are a key.
const MAX_NAME: usize = 512;
/// Members of a key that nobody may publish.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A receipt, read and as it was sent: the runtime sends the same bytes every time.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    pub text: String,
    pub document: Value,
}

impl Receipt {
    /// Reads a receipt; `None` for what is not a JSON object.
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let document: Value = serde_json::from_str(&text).ok()?;
        document.is_object().then_some(Self { text, document })
    }

    /// Who issued it, unless that is too long for a name.
    pub fn issuer(&self) -> Option<&str> {
        self.document.get("issuer")?.as_str().filter(|issuer| is_name(issuer))
    }

    /// Whether somebody may have signed it.
    pub fn has_attestations(&self) -> bool {
        let attestations = self.document.get("attestations").and_then(Value::as_array);
        attestations.is_some_and(|attestations| !attestations.is_empty())
    }
}

/// The Ed25519 keys of a JWK set that can verify receipts, by key id. A key id that stands twice
/// names no key, and neither does one that comes with its private part.
pub fn usable_keys(jwks: &Value) -> BTreeMap<String, String> {
    let keys = jwks.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut found: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for key in keys {
        if let Some(id) = key.get("kid").and_then(Value::as_str) {
            found.entry(id).or_default().push(usable(key));
        }
    }
    let single = found.into_iter().filter_map(|(id, keys)| match keys[..] {
        [Some(key)] if is_name(id) => Some((id.to_owned(), key.to_owned())),
        _ => None,
    });
    single.collect()
}

/// The key as `x` of its JWK.
fn usable(key: &Value) -> Option<&str> {
    let is = |name: &str, wanted: &str| key.get(name).and_then(Value::as_str) == Some(wanted);
    let may_be = |name: &str, wanted: &str| key.get(name).is_none() || is(name, wanted);
    let fits = is("kty", "OKP")
        && is("crv", "Ed25519")
        && may_be("alg", "EdDSA")
        && may_be("use", "sig")
        && PRIVATE.iter().all(|member| key.get(member).is_none());
    key.get("x")?.as_str().filter(|x| fits && is_name(x))
}

/// Whether databases take it as a part of a key.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(id: &str, x: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x, "alg": "EdDSA", "use": "sig" })
    }

    #[test]
    fn only_public_ed25519_keys_with_a_name_of_their_own_are_used() {
        let mut cases = vec![key("a", "AAA"), key("twice", "AAA"), key("twice", "BBB")];
        for (member, value) in [
            ("kty", json!("RSA")),
            ("crv", json!("X25519")),
            ("alg", json!("RS256")),
            ("use", json!("enc")),
            ("d", json!("secret")),
            ("k", json!("secret")),
            ("x", json!("")),
            ("x", json!(7)),
            ("kid", json!("")),
            ("kid", json!("a\0b")),
        ] {
            let mut other = key(&format!("bad-{member}"), "AAA");
            other[member] = value;
            cases.push(other);
        }
        let mut plain = key("plain", "CCC");
        plain.as_object_mut().unwrap().retain(|name, _| name != "alg" && name != "use");
        cases.push(plain);

        let keys = usable_keys(&json!({ "keys": cases }));

        let wanted = [("a", "AAA"), ("plain", "CCC")];
        assert_eq!(keys, wanted.map(|(id, x)| (id.to_owned(), x.to_owned())).into());
    }

    #[test]
    fn what_is_no_set_of_keys_has_none() {
        for jwks in [json!(null), json!([]), json!({ "keys": {} }), json!({ "keys": [7, null] })] {
            assert!(usable_keys(&jwks).is_empty(), "{jwks}");
        }
    }

    #[test]
    fn a_receipt_keeps_its_bytes() {
        let text = r#"{ "issuer":"runtime:a",  "attestations":[] }"#;
        let receipt = Receipt::parse(text).unwrap();

        assert_eq!(receipt.text, text);
        assert_eq!((receipt.issuer(), receipt.has_attestations()), (Some("runtime:a"), false));
        assert_eq!(Receipt::parse("[]"), None);
        assert_eq!(Receipt::parse("{"), None);
    }
}
