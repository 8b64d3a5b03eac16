//! Follows a run's log from the command line, as `tail -f` follows a file.
//!
//! ```text
//! DATABASE_URL=sqlite://data/control-plane.db \
//!     cargo run -p control-plane-storage --example tail -- <run or session id> [after seq]
//! ```
//!
//! It prints an event per line, the exact text that is stored, from the first one (or the one after
//! the given seq) until the run is over. It only reads, so it can run beside the server.

use std::error::Error;
use std::io::{Write, stdout};

use control_plane_storage::{Access, Config, DatabaseUrl, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_missing| "DATABASE_URL is not set")?;
    let mut arguments = std::env::args().skip(1);
    let id = arguments.next().ok_or("which run? give its id, or its session's")?;
    let after = arguments.next().map_or(Ok(0), |text| text.parse())?;

    let config = Config { access: Access::Read, ..Config::new(DatabaseUrl::parse(&url)?) };
    let store = Store::connect(&config)?;
    let run = store.run_find(&id).await?;

    let mut follower = store.follow(run.id, after);
    loop {
        let events = follower.next(1000).await?;
        let mut out = stdout().lock();
        for event in &events {
            out.write_all(&event.body)?;
            out.write_all(b"\n")?;
        }
        drop(out);
        // A run's last event is written together with its end.
        let head = store.run_head(run.id).await?;
        if head.state.is_terminal() && follower.cursor() >= head.last_seq {
            return Ok(());
        }
    }
}
