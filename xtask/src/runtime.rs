//! The real MACP runtime: the server that we observe, built once and kept under `target/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{cargo, run, target};

/// The version that we are built against and tested with.
const VERSION: &str = "0.13.0";

/// The runtime's executable, built if it is not there in this version.
pub(crate) fn ensure() -> Result<PathBuf> {
    let home = target().join("macp-runtime");
    let executable = home.join("bin").join("macp-runtime");
    if executable.is_file() && installed(&home) {
        return Ok(executable);
    }
    println!("Building macp-runtime {VERSION}: a few minutes, once");
    // Not `--locked`: the crate's own lock file names a version that cannot be resolved.
    let mut install = cargo(&["install", "macp-runtime", "--version", VERSION, "--force"]);
    install.args(["--bin", "macp-runtime", "--root"]).arg(&home);
    install.arg("--target-dir").arg(target().join("macp-runtime-build"));
    install.env("PROTOC", protoc()?);
    run(&mut install)?;
    Ok(executable)
}

/// A `protoc` from a crate: only the runtime's build script wants one, ours do not.
pub(crate) fn protoc() -> Result<PathBuf> {
    protoc_bin_vendored::protoc_bin_path()
        .context("there is no vendored `protoc` for this machine: install protobuf-compiler")
}

/// `cargo install` keeps a list of what it installed, and that is our stamp.
fn installed(home: &Path) -> bool {
    let list = fs::read_to_string(home.join(".crates.toml")).unwrap_or_default();
    lists_this_version(&list)
}

fn lists_this_version(list: &str) -> bool {
    list.lines().any(|line| line.starts_with(&format!("\"macp-runtime {VERSION} ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_version_counts_as_installed() {
        let line = |version: &str| {
            format!("[v1]\n\"macp-runtime {version} (registry+x)\" = [\"macp-runtime\"]\n")
        };

        assert!(lists_this_version(&line(VERSION)));
        assert!(!lists_this_version(&line("0.12.9")));
        assert!(!lists_this_version(""));
    }
}
