//! The house rules that no lint knows: file headers, file sizes, marks and paths.
//!
//! **Invariant:** [`faults`] looks at one file's text only, so each rule is tested without a disk.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::root;

const MAX_LINES: usize = 500;
/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", "data", ".git", "node_modules"];
/// Marks of unfinished work; put together here, so that this file has none.
const MARKS: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("XX", "X")];
/// Where somebody's own files are; put together here for the same reason.
const PERSONAL: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
const IGNORED_TEST: &str = concat!("#[ig", "nore");

/// Reads every file of ours and fails on everything that is wrong.
pub(crate) fn check() -> Result<()> {
    let mut found = Vec::new();
    let mut files = 0_usize;
    walk(root(), &mut |path, text| {
        files += 1;
        found.extend(faults(path, text));
    })?;
    let read = |path: &str| {
        fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
    };
    found.extend(undocumented(&read("crates/server/src/config.rs")?, &read("docs/CONFIG.md")?));
    if found.is_empty() {
        println!("tidy: {files} files, nothing to say");
        return Ok(());
    }
    bail!("not tidy:\n  {}", found.join("\n  "))
}

/// Everything that is wrong with a file, as sentences that begin with its place.
pub(crate) fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let rust = path.ends_with(".rs");
    if rust && !text.lines().next().is_some_and(|line| line.starts_with("//! ")) {
        faults.push(format!("{path}:1: must begin with a `//!` line that says what it is for"));
    }
    let lines = text.lines().count();
    if rust && lines > MAX_LINES {
        faults.push(format!("{path}: has {lines} lines, {MAX_LINES} are allowed: split it"));
    }
    for (index, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", index + 1);
        if rust && line.contains(IGNORED_TEST) {
            faults.push(format!("{place}: an ignored test is no test"));
        }
        if let Some(mark) = MARKS.iter().find(|mark| has_word(line, mark)) {
            faults.push(format!("{place}: `{mark}` belongs in an issue, not in the code"));
        }
        if let Some(personal) = PERSONAL.iter().find(|personal| line.contains(**personal)) {
            faults.push(format!("{place}: a path under `{personal}` exists on one machine only"));
        }
    }
    faults
}

/// The variables that the configuration reads and its document does not name.
fn undocumented(config: &str, document: &str) -> Vec<String> {
    let is_variable = |word: &str| {
        word.contains(char::is_alphabetic)
            && word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    };
    let mut names: Vec<&str> = config.split('"').filter(|word| is_variable(word)).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !document.contains(&format!("`{name}`")));
    names.into_iter().map(|name| format!("docs/CONFIG.md: does not name `{name}`")).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .any(|found| found == word)
}

fn walk(folder: &Path, visit: &mut impl FnMut(&str, &str)) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {folder:?}"))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_ref()) {
                walk(&path, visit)?;
            }
        } else if name != "Cargo.lock"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let shown = path.strip_prefix(root()).unwrap_or(&path);
            visit(&shown.to_string_lossy(), &text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
