//! A real browser, headless, for as long as a test wants it.
//!
//! **Invariant:** nobody steers it: it opens a page, and the page does the rest and reports back.
//! Nothing that it keeps outlives the test.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::program::{CHROMIUM, Kept};
use crate::wait::wait_until;

/// No sandbox, because tests run as root too, where Chromium has none; nothing that it would like
/// to fetch for itself.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1000,1200",
];

/// A browser that shows a page.
#[derive(Debug)]
pub struct Browser {
    _kept: Kept,
    _home: TempDir,
}

impl Browser {
    /// Opens a page.
    ///
    /// # Panics
    /// When there is no browser.
    pub fn open(url: &str) -> Self {
        Self::start(&[], url)
    }

    /// Writes a picture of a page as it is when all that it loads is there.
    ///
    /// # Panics
    /// When there is none within `deadline`.
    pub async fn picture(url: &str, path: &Path, deadline: Duration) {
        drop(fs::remove_file(path));
        let wanted = format!("--screenshot={}", path.display());
        let _browser = Self::start(&[&wanted], url);
        // The last bytes of a PNG.
        let whole =
            async || fs::read(path).is_ok_and(|bytes| bytes.ends_with(b"IEND\xAE\x42\x60\x82"));
        wait_until(deadline, whole).await;
    }

    fn start(more: &[&str], url: &str) -> Self {
        let home = TempDir::with_prefix("macp-browser-")
            .unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let profile = format!("--user-data-dir={}", home.path().join("profile").display());
        let arguments = [FLAGS, more, &[profile.as_str(), url]].concat();
        let log = home.path().join("browser.log");
        let kept = Kept::start(CHROMIUM, &arguments, home.path(), &log);
        Self { _kept: kept, _home: home }
    }
}
