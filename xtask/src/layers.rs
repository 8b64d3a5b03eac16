//! Which crate may name which: the arrows between our crates only point down.
//!
//! **Invariant:** [`faults`] is a pure decision over a small graph, and what it does not know it
//! refuses: a new crate has no layer until somebody gives it one here.

use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::shell::root;

/// The chain: a crate may use the crates before it, and nothing else of ours.
const CHAIN: &[&str] = &[
    "control-plane-domain",
    "control-plane-storage",
    "control-plane-projection",
    "control-plane-insights",
    "control-plane-recovery",
    "control-plane-http",
    "control-plane-server",
];
/// The gRPC client, which implements a port of the domain.
const RUNTIME: &str = "control-plane-runtime";
/// The HTTP client, which implements another.
const OUTBOUND: &str = "control-plane-outbound";
/// What tests need; shipped with nothing.
const TESTKIT: &str = "control-plane-testkit";
const XTASK: &str = "xtask";

/// A crate of this workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    /// Whether it takes the workspace's lints.
    pub(crate) takes_lints: bool,
}

/// A name in a crate's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) use_in: UseIn,
}

/// Where a dependency counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UseIn {
    /// Always part of what is shipped, or of its build script.
    Always,
    /// Part of what is shipped only with a feature.
    Feature,
    /// Tests, examples and benches.
    Tests,
}

/// A family of libraries that has a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framework {
    Database,
    Http,
    Grpc,
    Protobuf,
    EmbeddedRuntime,
}

/// Reads the workspace and fails on everything that is wrong.
pub(crate) fn check() -> Result<()> {
    let packages = read()?;
    let faults = faults(&packages);
    if faults.is_empty() {
        println!("layers: {} crates, all arrows point down", packages.len());
        return Ok(());
    }
    bail!("the layers are broken:\n  {}", faults.join("\n  "))
}

/// Everything that is wrong with the graph, as sentences.
pub(crate) fn faults(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let Package { name, dependencies, takes_lints } = package;
        if !takes_lints {
            faults.push(format!("`{name}` must have `[lints] workspace = true`"));
        }
        if !is_known(name) {
            faults.push(format!("`{name}` is in no layer: give it one in xtask/src/layers.rs"));
            continue;
        }
        for dependency in dependencies {
            let ours = packages.iter().any(|other| other.name == dependency.name);
            let allowed = if ours || is_known(&dependency.name) {
                may_use(name, dependency)
            } else {
                may_name(name, dependency)
            };
            if !allowed {
                faults.push(format!("`{name}` must not depend on `{}`", dependency.name));
            }
        }
    }
    faults
}

fn is_known(name: &str) -> bool {
    CHAIN.contains(&name) || [RUNTIME, OUTBOUND, TESTKIT, XTASK].contains(&name)
}

/// Whether the crate may use another crate of ours.
fn may_use(name: &str, dependency: &Dependency) -> bool {
    let place = |wanted: &str| CHAIN.iter().position(|link| *link == wanted);
    let in_tests = dependency.use_in == UseIn::Tests;
    match (name, dependency.name.as_str()) {
        (_, XTASK) => false,
        (_, TESTKIT) => in_tests,
        (XTASK, _) => false,
        // The test kit stands beside the chain: it may use all of it but the binary.
        (TESTKIT, other) => other != "control-plane-server",
        ("control-plane-server", RUNTIME | OUTBOUND) => true,
        (_, RUNTIME | OUTBOUND) => in_tests,
        (RUNTIME | OUTBOUND, other) => other == "control-plane-domain",
        (from, to) => match (place(from), place(to)) {
            (Some(from), Some(to)) => to < from,
            (None, _) | (_, None) => false,
        },
    }
}

/// Whether the crate may name a library of somebody else.
fn may_name(name: &str, dependency: &Dependency) -> bool {
    if dependency.use_in == UseIn::Tests || [TESTKIT, XTASK].contains(&name) {
        return true;
    }
    let optional = dependency.use_in == UseIn::Feature;
    let server = name == "control-plane-server";
    match framework(&dependency.name) {
        None => true,
        Some(Framework::Database) => name == "control-plane-storage",
        Some(Framework::Http) => server || name == "control-plane-http",
        // Spans leave as protobuf over plain HTTP.
        Some(Framework::Protobuf) => name == RUNTIME || server,
        Some(Framework::Grpc) => name == RUNTIME || (server && optional),
        Some(Framework::EmbeddedRuntime) => server && optional,
    }
}

fn framework(name: &str) -> Option<Framework> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&["diesel", "tokio-postgres", "libsqlite3-sys", "rusqlite", "sqlx", "deadpool"]) {
        Some(Framework::Database)
    } else if starts(&["actix"]) {
        Some(Framework::Http)
    } else if starts(&["tonic"]) || ["prost-build", "prost-derive"].contains(&name) {
        Some(Framework::Grpc)
    } else if name == "prost" {
        Some(Framework::Protobuf)
    } else if name == "macp-runtime" {
        Some(Framework::EmbeddedRuntime)
    } else {
        None
    }
}

fn read() -> Result<Vec<Package>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("`cargo metadata` failed")?;
    metadata
        .packages
        .into_iter()
        .map(|package| {
            let manifest = fs::read_to_string(&package.manifest_path)
                .with_context(|| format!("cannot read {}", package.manifest_path))?;
            let dependencies = package.dependencies.iter().map(|dependency| Dependency {
                name: dependency.name.clone(),
                use_in: if dependency.kind == DependencyKind::Development {
                    UseIn::Tests
                } else if dependency.optional {
                    UseIn::Feature
                } else {
                    UseIn::Always
                },
            });
            Ok(Package {
                name: package.name.to_string(),
                dependencies: dependencies.collect(),
                takes_lints: takes_lints(&manifest),
            })
        })
        .collect()
}

fn takes_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}

#[cfg(test)]
mod tests;
