//! Certificates of an authority that nobody knows but the test.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::scripted::ServerTls;

/// A new authority's certificate, as PEM, and one that it gave to a server on 127.0.0.1.
pub fn authority() -> (String, ServerTls) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own_key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, own_key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let tls = ServerTls { certificate: leaf.pem(), key: key.serialize_pem() };
    (issuer.pem(), tls)
}
