//! The layers hold because a graph that breaks them is refused, one rule at a time.

use super::*;

fn package(name: &str, dependencies: &[(&str, UseIn)]) -> Package {
    let dependencies = dependencies
        .iter()
        .map(|(name, use_in)| Dependency { name: (*name).to_owned(), use_in: *use_in })
        .collect();
    Package { name: name.to_owned(), dependencies, takes_lints: true }
}

/// What is said about one crate with one dependency.
fn verdict(name: &str, dependency: &str, use_in: UseIn) -> Vec<String> {
    faults(&[package(name, &[(dependency, use_in)])])
}

fn refused(name: &str, dependency: &str) -> Vec<String> {
    vec![format!("`{name}` must not depend on `{dependency}`")]
}

const NONE: Vec<String> = Vec::new();

#[test]
fn every_crate_may_use_the_ones_before_it_and_no_other() {
    for (place, name) in CHAIN.iter().enumerate() {
        for (other_place, other) in CHAIN.iter().enumerate() {
            let expected = if other_place < place { NONE } else { refused(name, other) };

            assert_eq!(verdict(name, other, UseIn::Always), expected, "{name} -> {other}");
        }
    }
}

#[test]
fn an_arrow_that_points_up_is_refused_in_tests_too() {
    let (name, other) = ("control-plane-storage", "control-plane-projection");

    assert_eq!(verdict(name, other, UseIn::Tests), refused(name, other));
}

#[test]
fn the_clients_of_others_are_named_by_the_server_and_by_tests_only() {
    for client in [RUNTIME, OUTBOUND] {
        assert_eq!(verdict("control-plane-server", client, UseIn::Always), NONE);
        assert_eq!(verdict("control-plane-recovery", client, UseIn::Tests), NONE);
        for name in ["control-plane-recovery", "control-plane-http", "control-plane-domain"] {
            assert_eq!(verdict(name, client, UseIn::Always), refused(name, client));
        }
    }
}

#[test]
fn the_clients_of_others_use_the_domain_only() {
    for (client, other) in [(RUNTIME, OUTBOUND), (OUTBOUND, RUNTIME)] {
        assert_eq!(verdict(client, "control-plane-domain", UseIn::Always), NONE);
        assert_eq!(verdict(client, other, UseIn::Always), refused(client, other));
        let storage = "control-plane-storage";
        assert_eq!(verdict(client, storage, UseIn::Always), refused(client, storage));
    }
}

#[test]
fn the_test_kit_is_a_dev_dependency_or_nothing() {
    assert_eq!(verdict("control-plane-http", TESTKIT, UseIn::Tests), NONE);
    for use_in in [UseIn::Always, UseIn::Feature] {
        let expected = refused("control-plane-http", TESTKIT);
        assert_eq!(verdict("control-plane-http", TESTKIT, use_in), expected);
    }
}

#[test]
fn the_test_kit_may_use_all_but_the_binary() {
    assert_eq!(verdict(TESTKIT, "control-plane-http", UseIn::Always), NONE);
    assert_eq!(verdict(TESTKIT, "tonic", UseIn::Always), NONE);
    let server = "control-plane-server";
    assert_eq!(verdict(TESTKIT, server, UseIn::Always), refused(TESTKIT, server));
}

#[test]
fn a_database_library_outside_storage_is_refused() {
    let libraries = ["diesel", "diesel-async", "diesel_migrations", "tokio-postgres", "sqlx"];
    for library in libraries {
        assert_eq!(verdict("control-plane-storage", library, UseIn::Always), NONE);
        for name in ["control-plane-domain", "control-plane-http", "control-plane-server"] {
            assert_eq!(verdict(name, library, UseIn::Always), refused(name, library));
            assert_eq!(verdict(name, library, UseIn::Feature), refused(name, library));
        }
    }
}

#[test]
fn actix_is_at_home_in_http_and_server_only() {
    for name in CHAIN.iter().chain([&RUNTIME]) {
        let home = ["control-plane-http", "control-plane-server"].contains(name);
        let expected = if home { NONE } else { refused(name, "actix-web") };

        assert_eq!(verdict(name, "actix-web", UseIn::Always), expected);
    }
}

#[test]
fn tonic_is_at_home_in_runtime_only() {
    for library in ["tonic", "tonic-prost", "prost-build"] {
        for name in CHAIN {
            assert_eq!(verdict(name, library, UseIn::Always), refused(name, library));
        }
        assert_eq!(verdict(RUNTIME, library, UseIn::Always), NONE);
    }
}

#[test]
fn protobuf_is_named_by_runtime_and_by_the_server_that_exports_spans() {
    for name in [RUNTIME, "control-plane-server"] {
        assert_eq!(verdict(name, "prost", UseIn::Always), NONE);
    }
    for name in ["control-plane-domain", "control-plane-recovery", "control-plane-http"] {
        assert_eq!(verdict(name, "prost", UseIn::Always), refused(name, "prost"));
    }
}

#[test]
fn the_server_may_embed_a_runtime_behind_a_feature_only() {
    let server = "control-plane-server";
    for library in ["tonic", "macp-runtime"] {
        assert_eq!(verdict(server, library, UseIn::Feature), NONE);
        assert_eq!(verdict(server, library, UseIn::Always), refused(server, library));
    }
}

#[test]
fn reflection_is_no_framework_because_the_domain_decodes_with_it() {
    assert_eq!(verdict("control-plane-domain", "prost-reflect", UseIn::Always), NONE);
}

#[test]
fn tests_may_name_any_framework() {
    assert_eq!(verdict("control-plane-http", "diesel", UseIn::Tests), NONE);
}

#[test]
fn a_crate_without_a_layer_is_refused() {
    let faults = faults(&[package("control-plane-extras", &[])]);

    assert_eq!(
        faults,
        ["`control-plane-extras` is in no layer: give it one in xtask/src/layers.rs"]
    );
}

#[test]
fn nobody_may_use_a_crate_without_a_layer() {
    let name = "control-plane-http";
    let graph = [
        package(name, &[("control-plane-extras", UseIn::Always)]),
        package("control-plane-extras", &[]),
    ];

    assert!(faults(&graph).contains(&refused(name, "control-plane-extras")[0]));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut domain = package("control-plane-domain", &[]);
    domain.takes_lints = false;

    assert_eq!(faults(&[domain]), ["`control-plane-domain` must have `[lints] workspace = true`"]);
    assert!(takes_lints("[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n"));
    assert!(!takes_lints("[package]\nname = \"x\"\n\n[lints.rust]\nunsafe_code = \"allow\"\n"));
}

#[test]
fn this_workspace_keeps_its_layers() {
    assert_eq!(faults(&read().unwrap()), NONE);
}
