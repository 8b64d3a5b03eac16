//! The Python SDK, whose verifier knows nothing of ours: in a virtual environment under `target/`.
//!
//! **Invariant:** what the tests hold us against is this version, whatever else is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::shell::{capture, run, target};

/// The variable that says where a Python with the SDK is, to us and to the tests.
pub(crate) const VARIABLE: &str = "MACP_SDK_PYTHON";
const VERSION: &str = "0.22.0";
/// Prints the SDK's version, if it can check signatures.
const ASK: &str =
    "import cryptography, importlib.metadata as m; print(m.version('macp-sdk-python'))";

/// A Python that has the SDK; brought if it is not there.
pub(crate) fn ensure(python: &Path) -> Result<PathBuf> {
    if let Some(given) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let given = PathBuf::from(given);
        if !has_sdk(&given) {
            bail!("{VARIABLE} names a Python without {}: {}", wanted(), advice());
        }
        return Ok(given);
    }
    let home = target().join("macp-sdk-python");
    let interpreter = home.join("bin").join("python");
    if has_sdk(&interpreter) {
        return Ok(interpreter);
    }
    println!("Bringing {}: once", wanted());
    let can = Command::new(python).args(["-c", "import ensurepip"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        packages::install(&["python3-venv"], &advice())?;
    }
    run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&home)).with_context(advice)?;
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &wanted()]);
    run(&mut install).with_context(advice)?;
    if !has_sdk(&interpreter) {
        bail!("what was installed is not {}: {}", wanted(), advice());
    }
    Ok(interpreter)
}

fn has_sdk(interpreter: &Path) -> bool {
    let path = interpreter.to_string_lossy();
    capture(&path, &["-I", "-c", ASK]).as_deref() == Some(VERSION)
}

fn wanted() -> String {
    format!("macp-sdk-python[receipts]=={VERSION}")
}

fn advice() -> String {
    format!(
        "the tests hold our verification against the Python SDK: install `{}` into a virtual \
         environment (Debian: `apt-get install python3-venv`) and set {VARIABLE} to its Python",
        wanted()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_the_sdk_does_not_do() {
        assert!(!has_sdk(Path::new("/no-such-python-anywhere")));
        assert!(!has_sdk(Path::new("/bin/true")));
    }

    #[test]
    fn what_cannot_be_brought_is_named_with_its_version_and_its_variable() {
        let advice = advice();
        for word in [VERSION, VARIABLE, "python3-venv", "[receipts]"] {
            assert!(advice.contains(word), "{advice}");
        }
    }
}
