//! Many signals at once.

use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, wait_for};
use futures_util::stream::{self, StreamExt};

use super::support::Rig;
use super::{is_told, records, running};

const SIGNALS: usize = 3000;
/// How many agents speak at the same time.
const SPEAKING: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_progress_is_recorded_as_a_whole() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        records(&rig).await;
        let (session, run, accepted) = running(&rig, &cast).await;

        let (bob, session) = (&cast.bob, &session);
        let say = |n: usize| async move {
            let done = f64::from(u32::try_from(n).unwrap());
            bob.progress(session, message::DECISION, done, 3000.0).await
        };
        let ids: Vec<String> =
            stream::iter(0..SIGNALS).map(say).buffer_unordered(SPEAKING).collect().await;

        // Reading the whole log again and again would be most of the work.
        let ask = async || rig.store.metrics_get(run).await.unwrap().unwrap().message_count;
        let all = i64::try_from(SIGNALS + accepted.len()).unwrap();
        wait_for(DEADLINE, ask, |count| *count == all).await;
        is_told(&rig, run, &ids).await;
        let start = rig.store.run_get(run).await.unwrap().created_at;
        assert_eq!(rig.store.signal_gaps(start, None).await.unwrap(), []);
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}
