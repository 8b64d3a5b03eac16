//! The test vectors that the runtime publishes with its crate: read where cargo keeps its source.
//!
//! **Invariant:** they are those of the version that we are built with, and a missing one fails the
//! test.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The vectors in a folder of the runtime's crate, by their names.
///
/// # Panics
/// When the crate's source is not there: building with the embedded runtime brings it.
pub fn of_runtime(folder: &str) -> Vec<(String, Value)> {
    let folder = source_of("macp-runtime").join(folder);
    let files = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
    let paths = files.map(|file| file.unwrap_or_else(|error| panic!("{error}")).path());
    let mut vectors: Vec<(String, Value)> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (name_of(&path), read(&path)))
        .filter(|(name, _)| name != "vector-schema")
        .collect();
    vectors.sort_by(|(one, _), (other, _)| one.cmp(other));
    vectors
}

fn name_of(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where a crate that we depend on has its source.
fn source_of(name: &str) -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    // Of this machine alone: what others need may never have been fetched.
    let version = output(Command::new("rustc").arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let metadata = output(
        Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["metadata", "--format-version", "1", "--offline", "--all-features"])
            .args(["--filter-platform", host]),
    );
    let metadata: Value = serde_json::from_str(&metadata).unwrap_or_default();
    let packages = metadata.get("packages").and_then(Value::as_array);
    let text = |package: &Value, member: &str| {
        package.get(member).and_then(Value::as_str).map(str::to_owned)
    };
    let found = packages.map(Vec::as_slice).unwrap_or_default().iter();
    let mut manifests = found
        .filter(|package| text(package, "name").as_deref() == Some(name))
        .filter_map(|package| text(package, "manifest_path"));
    let manifest = manifests.next().unwrap_or_else(|| panic!("cargo knows no {name}"));
    Path::new(&manifest).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
