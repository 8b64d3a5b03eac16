//! Compressed exports.

use control_plane_testkit::database::Kind;
use control_plane_testkit::program::CURL;
use tokio::process::Command;

use super::{api, recorded};
use crate::support::Journal;

/// What curl makes of an answer, and what it writes about it.
async fn fetch(url: &str, encoding: &str) -> (String, String) {
    let mut command = Command::new(CURL.path());
    command.args(["-q", "--noproxy", "*", "-sS", "--compressed", "-D", "/dev/stderr"]);
    let output = command.args(["-H", encoding, url]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stderr).to_lowercase(), text(output.stdout))
}

/// What does not depend on when it was asked for.
fn timeless(lines: &str) -> Vec<&str> {
    lines.lines().filter(|line| line.starts_with("{\"kind\":\"canonical_event\"")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_compressed_for_those_who_take_it_and_is_the_same() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let mut journal = recorded(&api).await;
        let mut long = Journal::create(&api.store).await;
        long.append_large(100, 20_000).await;
        long.complete().await;
        for id in [journal.id(), long.id()] {
            let url = api.at(&format!("/runs/{id}/export/stream"));
            let plain = api.client.get(&url).send().await.unwrap();
            assert_eq!(plain.headers().get("content-encoding"), None);
            let plain = plain.text().await.unwrap();

            for encoding in ["gzip", "zstd"] {
                let (head, text) = fetch(&url, &format!("Accept-Encoding: {encoding}")).await;
                assert!(head.contains(&format!("content-encoding: {encoding}\r\n")), "{head}");
                assert_eq!(timeless(&text), timeless(&plain), "{encoding}");
                assert!(text.contains("\n{\"kind\":\"end\","), "{encoding}: {} bytes", text.len());
            }
        }
        // Other answers are left alone.
        let (head, _) = fetch(&api.at("/runs"), "Accept-Encoding: gzip").await;
        assert!(!head.contains("content-encoding"), "{head}");
        journal.let_pass(chrono::TimeDelta::zero());
        api.stop().await;
    }
}
