//! Kills processes as planned, and starts them again.

use control_plane_testkit::DEADLINE;
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::runtime::RuntimeProcess;
use tokio::time::sleep;

use crate::plan::{Kill, Victim};
use crate::round::Story;

/// How often something was killed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Killed {
    pub(crate) servers: usize,
    pub(crate) runtimes: usize,
    /// Of the servers, those that were not up yet.
    pub(crate) starting: usize,
}

/// Everything is up when it is done.
pub(crate) async fn kill(
    kills: &[Kill],
    server: &mut ServerProcess,
    runtime: &mut RuntimeProcess,
    story: &Story,
) -> Killed {
    let mut killed = Killed::default();
    for Kill { after, victim, gone, again } in kills {
        sleep(*after).await;
        let (takes_server, takes_runtime) = match victim {
            Victim::Server => (true, false),
            Victim::Runtime => (false, true),
            Victim::Both => (true, true),
        };
        story.note(format!("kill -9 of {victim:?}"));
        if takes_server {
            server.kill();
            killed.servers += 1;
        }
        if takes_runtime {
            runtime.kill().await;
            killed.runtimes += 1;
        }
        sleep(*gone).await;
        if takes_server {
            server.start_again();
            if let Some(soon) = again {
                sleep(*soon).await;
                story.note("kill -9 of the server as it starts".to_owned());
                server.start_again();
                killed.servers += 1;
                killed.starting += 1;
            }
        }
        if takes_runtime {
            runtime.restart().await;
            story.note("the runtime is up".to_owned());
        }
        if takes_server {
            server.wait_until_ready(DEADLINE).await;
            story.note("the server is up".to_owned());
        }
    }
    killed
}
