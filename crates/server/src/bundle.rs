//! `verify` and `import`: bundles from files, or from standard input.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use control_plane_domain::{Clock as _, SystemClock};
use control_plane_insights::bundle::verify::{
    Options, Verified, verify as verify_input, verify_file,
};
use control_plane_recovery::{ImportError, Imported, import as import_bundle};

use crate::config::Config;
use crate::{complain, database};

/// What `verify` ends with when the bundle cannot be read at all.
const UNREADABLE: u8 = 2;

/// How to verify.
#[derive(clap::Args)]
pub(crate) struct VerifyArguments {
    /// The bundle; `-` for standard input.
    file: PathBuf,
    /// Say it as JSON.
    #[arg(long)]
    json: bool,
    /// The hash that the run's `end` frame has, or another head of its hash chain that is known.
    #[arg(long, value_name = "HEX")]
    hash: Option<String>,
}

/// `macp-control-plane verify`: 0 for a sound bundle, 1 for one that is not, 2 if it cannot be read.
pub(crate) fn verify(arguments: VerifyArguments) -> ExitCode {
    let VerifyArguments { file, json, hash } = arguments;
    let options = Options { known_hash: hash, at_most: None };
    let verified = match is_standard_input(&file) {
        true => verify_input(io::stdin().lock(), &options),
        false => File::open(&file).and_then(|mut file| verify_file(&mut file, &options)),
    };
    match verified.and_then(|verified| say(&verified, json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("{}: {error}", file.display()));
            ExitCode::from(UNREADABLE)
        }
    }
}

fn say(verified: &Verified, json: bool) -> io::Result<bool> {
    let report = &verified.report;
    let mut out = io::stdout().lock();
    match json {
        true => {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        }
        false => writeln!(out, "{report}")?,
    }
    Ok(report.sound)
}

/// `macp-control-plane import`: into the database that is configured.
pub(crate) async fn import(config: Config, file: PathBuf) -> anyhow::Result<ExitCode> {
    let bundle = open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let store = database::open(&config).await.context(
        "nothing was imported; a server that has the database open takes bundles at POST /runs/import",
    )?;
    let mut out = io::stdout().lock();
    match import_bundle(&store, bundle, None, SystemClock.now()).await {
        Ok(Imported { run, report }) => {
            writeln!(out, "Imported run {} with {} events.", run.id, report.canonical_events)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(ImportError::Unsound(report)) => {
            writeln!(out, "{report} Nothing was imported.")?;
            Ok(ExitCode::FAILURE)
        }
        Err(fault) => Err(anyhow::Error::from(fault).context("nothing was imported")),
    }
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// A file that can be read twice.
fn open(file: &Path) -> io::Result<File> {
    if !is_standard_input(file) {
        return File::open(file);
    }
    let mut spooled = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut spooled)?;
    Ok(spooled)
}
