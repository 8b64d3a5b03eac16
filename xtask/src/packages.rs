//! Programs that the tests start: found where they are, or installed from Debian's packages.
//!
//! **Invariant:** a program that is not there is brought or named in the error, together with the
//! package that has it and the variable that may say where it is; a test never goes without it.
//! What is installed here starts no service.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, iter};

use anyhow::{Result, bail};

use crate::shell::{capture, run};

/// Asked by Debian's packages before they start a service.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// A program that tests start.
#[derive(Debug)]
pub(crate) struct Program {
    /// Says where it is, to us and to the tests.
    variable: &'static str,
    /// Its names, the likeliest first.
    names: &'static [&'static str],
    /// The Debian package that has it.
    package: &'static str,
}

/// What the tests of real clients need, besides the server and the runtime.
pub(crate) const CLIENTS: &[Program] = &[
    Program { variable: "NGINX_BIN", names: &["nginx"], package: "nginx" },
    Program {
        variable: "CHROMIUM_BIN",
        names: &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
        package: "chromium",
    },
    Program { variable: "CURL_BIN", names: &["curl"], package: "curl" },
    Program { variable: "PYTHON_BIN", names: &["python3"], package: "python3" },
];

/// Every program's variable and path; what is not there is installed before, all at once.
pub(crate) fn ensure(programs: &[Program]) -> Result<Vec<(&'static str, PathBuf)>> {
    let missing = missing(programs, &find);
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
        install(&packages, &advice(&missing))?;
    }
    let mut found = Vec::new();
    for program in programs {
        match find(program) {
            Some(path) => found.push((program.variable, path)),
            None => bail!(advice(&[program])),
        }
    }
    Ok(found)
}

/// Installs Debian's packages; `advice` is the error where that cannot be done.
pub(crate) fn install(packages: &[&str], advice: &str) -> Result<()> {
    if !is_root() || capture("apt-get", &["--version"]).is_none() {
        bail!("{advice}");
    }
    println!("Not here: {}. Installing Debian's", packages.join(", "));
    let _quiet = NoServices::declare(Path::new(SERVICE_POLICY))?;
    run(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(packages);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether this process may install packages, and must not run a database.
pub(crate) fn is_root() -> bool {
    capture("id", &["-u"]).as_deref() == Some("0")
}

/// A program's path: what its variable says, or the first of its names that is a file.
fn find(program: &Program) -> Option<PathBuf> {
    if let Some(path) = env::var_os(program.variable).filter(|path| !path.is_empty()) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let search_path = env::var_os("PATH").unwrap_or_default();
    // Servers are there, and only root's search path has it.
    let folders: Vec<PathBuf> =
        env::split_paths(&search_path).chain(iter::once(PathBuf::from("/usr/sbin"))).collect();
    let candidates =
        program.names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|path| path.is_file())
}

fn missing<'a>(
    programs: &'a [Program],
    find: &dyn Fn(&Program) -> Option<PathBuf>,
) -> Vec<&'a Program> {
    programs.iter().filter(|program| find(program).is_none()).collect()
}

fn advice(missing: &[&Program]) -> String {
    let sentences: Vec<String> = missing
        .iter()
        .map(|Program { variable, names, package }| {
            let name = names.first().unwrap_or(package);
            format!(
                "the tests need `{name}`: install it (Debian: `apt-get install {package}`) or set \
                 {variable} to where it is"
            )
        })
        .collect();
    sentences.join("; ")
}

/// While it lives, Debian's packages are told not to start what they bring.
struct NoServices<'a> {
    /// `None` when the machine has a policy of its own.
    ours: Option<&'a Path>,
}

impl<'a> NoServices<'a> {
    fn declare(policy: &'a Path) -> Result<Self> {
        if policy.exists() {
            return Ok(Self { ours: None });
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(policy)?;
        let declared = Self { ours: Some(policy) };
        // 101: "action forbidden by policy".
        file.write_all(b"#!/bin/sh\nexit 101\n")?;
        Ok(declared)
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        if let Some(policy) = self.ours {
            drop(fs::remove_file(policy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Program = Program {
        variable: "MACP_TEST_NO_SUCH_VARIABLE",
        names: &["no-such-program-anywhere"],
        package: "no-such-package",
    };

    #[test]
    fn a_program_is_found_by_any_of_its_names() {
        let shell = Program { names: &["no-such-program-anywhere", "sh"], ..NOWHERE };

        let found = ensure(&[shell]).unwrap();

        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|(_, path)| path.ends_with("sh") && path.is_file()), "{found:?}");
    }

    #[test]
    fn only_what_is_not_there_is_missing() {
        let is_curl = |program: &Program| (program.package == "curl").then(PathBuf::new);

        let missing: Vec<&str> =
            missing(CLIENTS, &is_curl).iter().map(|program| program.package).collect();

        assert_eq!(missing, ["nginx", "chromium", "python3"]);
        assert!(find(&NOWHERE).is_none());
    }

    #[test]
    fn what_cannot_be_brought_is_named_with_its_package_and_its_variable() {
        let advice = advice(&[&NOWHERE]);

        for word in ["no-such-program-anywhere", "no-such-package", "MACP_TEST_NO_SUCH_VARIABLE"] {
            assert!(advice.contains(word), "{advice}");
        }
    }

    #[test]
    fn services_are_forbidden_only_while_packages_are_installed() {
        let policy = env::temp_dir().join(format!("macp-policy-{}", std::process::id()));

        let quiet = NoServices::declare(&policy).unwrap();
        let during = Command::new(&policy).status().unwrap().code();
        let second = NoServices::declare(&policy).unwrap();
        drop(second);
        let still_there = policy.exists();
        drop(quiet);

        assert_eq!(during, Some(101));
        assert!(still_there, "a policy that was there before is not ours to remove");
        assert!(!policy.exists());
    }
}
