//! Whether the runtime offers a run's mode, asked once for many runs.

use std::time::{Duration, Instant};

use control_plane_domain::runtime::Runtime;
use tokio::sync::Mutex;

/// How long an answer holds: modes are registered at run time.
const FRESH: Duration = Duration::from_secs(5);

/// The last answer of `Initialize`.
#[derive(Default)]
pub(crate) struct ModeCheck(Mutex<Option<(Instant, Vec<String>)>>);

impl ModeCheck {
    /// The runtime's modes, when it lists some and `mode` is not among them. A runtime that does
    /// not answer refuses nothing, and is not asked once per waiting run.
    pub(crate) async fn refusal(&self, runtime: &dyn Runtime, mode: &str) -> Option<Vec<String>> {
        let mut last = self.0.lock().await;
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            let answer = runtime.initialize().await;
            let modes = answer.map_or_else(|_silent| Vec::new(), |info| info.supported_modes);
            *last = Some((Instant::now(), modes));
        }
        let (_, modes) = last.as_ref()?;
        (!modes.is_empty() && !modes.iter().any(|known| known == mode)).then(|| modes.clone())
    }
}
