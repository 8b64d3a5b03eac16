//! Programs of the system that tests start, and what keeps them from outliving their test.
//!
//! **Invariant:** a program that is not there is a panic that names its package, never a skipped
//! test. A [`Kept`] program and all that it started ends with its test, however the test ends.

use std::env;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs the program until standard input closes, which not even `kill -9` of the test prevents,
/// then ends its process group, of which the shell is a part.
const KEEPER: &str = r#"
"$@" </dev/null &
cat >/dev/null
kill -KILL 0
"#;

/// A program that is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// May say where it is.
    variable: &'static str,
    /// Its names, the likeliest first.
    names: &'static [&'static str],
    /// The Debian package that has it.
    package: &'static str,
}

/// A reverse proxy.
pub const NGINX: Program = Program { variable: "NGINX_BIN", names: &["nginx"], package: "nginx" };
/// A browser.
pub const CHROMIUM: Program = Program {
    variable: "CHROMIUM_BIN",
    names: &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
    package: "chromium",
};
/// The client that everybody has.
pub const CURL: Program = Program { variable: "CURL_BIN", names: &["curl"], package: "curl" };
/// Runs the documents' Python.
pub const PYTHON: Program =
    Program { variable: "PYTHON_BIN", names: &["python3"], package: "python3" };

/// A Python that has the SDK, whose verifier is independent of ours.
///
/// # Panics
/// When it is neither where `MACP_SDK_PYTHON` says nor where `cargo xtask test` puts it.
pub fn sdk_python() -> PathBuf {
    const VARIABLE: &str = "MACP_SDK_PYTHON";
    let ours =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/macp-sdk-python/bin/python");
    let path = env::var_os(VARIABLE).map_or_else(ours, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no Python with the SDK at {}: `cargo xtask test` brings it, or set {VARIABLE}",
        path.display()
    );
    path
}

impl Program {
    /// Where it is.
    ///
    /// # Panics
    /// When it is nowhere.
    pub fn path(&self) -> PathBuf {
        let Self { variable, names, package } = *self;
        if let Some(path) = env::var_os(variable) {
            return PathBuf::from(path);
        }
        let search_path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> =
            env::split_paths(&search_path).chain([PathBuf::from("/usr/sbin")]).collect();
        let found = names
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
            .find(|path| path.is_file());
        found.unwrap_or_else(|| {
            panic!(
                "there is no `{}`: install it (Debian: `apt-get install {package}`) or set \
                 {variable}; `cargo xtask test` brings it",
                names.first().unwrap_or(&package)
            )
        })
    }
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Kept {
    keeper: Child,
}

impl Kept {
    /// Starts it in `home`, its output going to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: Program, arguments: &[&str], home: &Path, log: &Path) -> Self {
        let output = File::create(log)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .unwrap_or_else(|error| panic!("{} cannot be written: {error}", log.display()));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", KEEPER, "keeper"]).arg(program.path()).args(arguments);
        // Browsers write where their user's settings are.
        shell.current_dir(home).env("HOME", home).process_group(0);
        shell.stdin(Stdio::piped()).stdout(output.0).stderr(output.1);
        let keeper =
            shell.spawn().unwrap_or_else(|error| panic!("`sh` cannot be started: {error}"));
        Self { keeper }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// Writes a file of a test.
///
/// # Panics
/// When that fails.
pub(crate) fn write(path: &Path, text: &str) {
    File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{DEADLINE, wait_for};

    #[tokio::test]
    async fn a_kept_program_ends_with_what_it_started() {
        let home = TempDir::new().unwrap();
        let log = home.path().join("log");
        let shell = Program { variable: "MACP_TEST_NO_SUCH_VARIABLE", names: &["sh"], package: "" };
        let script = "sleep 600 & echo $!; echo ready; wait";
        let alive = |pid: &str| fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false);

        let kept = Kept::start(shell, &["-c", script], home.path(), &log);
        let read = async || fs::read_to_string(&log).unwrap();
        let text = wait_for(DEADLINE, read, |text| text.contains("ready")).await;
        let pid = text.lines().next().unwrap();
        let during = fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        drop(kept);

        assert!(during);
        wait_for(DEADLINE, async || alive(pid), |alive| !alive).await;
    }

    #[test]
    #[should_panic(expected = "apt-get install no-such-package")]
    fn a_program_that_is_nowhere_is_named_with_its_package() {
        let variable = "MACP_TEST_NO_SUCH_VARIABLE";
        Program { variable, names: &["no-such-program"], package: "no-such-package" }.path();
    }
}
