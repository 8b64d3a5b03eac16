//! A headless Chromium with the client of our document, and without any.

use std::path::Path;

use control_plane_domain::RunId;
use control_plane_testkit::DEADLINE;
use control_plane_testkit::agent::Cast;
use control_plane_testkit::browser::Browser;
use control_plane_testkit::database::Kind;
use control_plane_testkit::document::code_block;
use control_plane_testkit::message;
use control_plane_testkit::network::{Cut, Network};
use control_plane_testkit::nginx::{Compression, Nginx};
use control_plane_testkit::pages::Pages;
use control_plane_testkit::runtime::RuntimeProcess;
use serde_json::{Value, json};
use url::Url;

use crate::all;
use crate::support::{Stage, Talk};

const PAGE: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/page.js");
/// What `EventSource.CLOSED` is.
const CLOSED: u64 = 2;

/// Which client the page uses.
#[derive(Clone, Copy)]
enum Client {
    Document,
    Plain,
}

/// A run that goes on, and a page server whose pages may watch it.
struct Show {
    pages: Pages,
    cast: Cast,
    stage: Stage,
    talk: Talk,
    run: RunId,
    _runtime: RuntimeProcess,
}

impl Show {
    async fn begin(kind: Kind) -> Self {
        let client = code_block("docs/streaming.md", "## In a browser", "js");
        let pages = Pages::serve(&[("/", PAGE), ("/page.js", SCRIPT), ("/client.js", &client)]);
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::with(kind, &runtime, &[("CORS_ORIGIN", &pages.origin())]).await;
        let talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        Self { pages, cast, stage, talk, run, _runtime: runtime }
    }

    fn path(&self) -> String {
        format!("/runs/{}/stream?afterSeq=0", self.run)
    }

    /// The address of a page that follows `stream`.
    fn page(&self, client: Client, stream: &str) -> Url {
        let name = match client {
            Client::Document => "document",
            Client::Plain => "plain",
        };
        let page = format!("{}/", self.pages.origin());
        Url::parse_with_params(&page, [("client", name), ("stream", stream)]).unwrap()
    }

    /// Says something, and waits until the page shows what came of it.
    async fn goes_on(&mut self) {
        self.talk.evaluate(&self.cast).await;
        self.stage.has_recorded(self.run, self.talk.accepted.len()).await;
        let events = self.events().await;
        self.pages.report(|page| seen(page).last() >= Some(&events)).await;
    }

    /// Kills the server, waits until the page has counted one more of `sign`, and starts it again.
    async fn server_restarts(&mut self, sign: &str) {
        let before = self.pages.report(|page| page[sign].is_u64()).await[sign].as_u64();
        self.stage.server.kill();
        // The agents do not wait for us.
        self.talk.evaluate(&self.cast).await;
        self.pages.report(|page| page[sign].as_u64() > before).await;
        self.stage.server.restart().await;
        self.goes_on().await;
    }

    async fn ends(&mut self) {
        self.talk.end(&self.cast).await;
        self.stage.reaches(self.run, "completed").await;
    }

    async fn events(&self) -> i64 {
        self.stage.store.run_head(self.run).await.unwrap().last_seq
    }

    /// The page has every event once, and knows how it ended.
    async fn is_whole(&self, page: &Value) {
        let last = self.events().await;
        assert_eq!(seen(page), all(last), "{page:#}");
        assert_eq!(page["end"]["status"], "completed");
        assert_eq!(page["end"]["totalEvents"], last);
        assert_eq!((&page["resets"], &page["strays"]), (&0.into(), &0.into()), "{page:#}");
        self.stage.is_whole(self.run, &self.talk.accepted).await;
    }
}

fn seen(page: &Value) -> Vec<i64> {
    let ids = page["ids"].as_array().into_iter().flatten();
    ids.filter_map(Value::as_i64).collect()
}

fn has_ended(page: &Value) -> bool {
    !page["end"].is_null()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_browser_client_gets_every_event_once_across_kills() {
    for kind in Kind::ALL {
        let mut show = Show::begin(kind).await;
        let stream = show.stage.server.url(&show.path());
        let browser = Browser::open(show.page(Client::Document, &stream).as_str());
        show.goes_on().await;

        show.server_restarts("errors").await;
        show.ends().await;

        let page = show.pages.report(has_ended).await;
        show.is_whole(&page).await;
        drop(browser);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_browser_client_reopens_what_a_proxys_502_has_closed() {
    let mut show = Show::begin(Kind::Sqlite).await;
    let nginx = Nginx::in_front_of(&show.stage.server.base_url(), Compression::Off).await;
    let _browser = Browser::open(show.page(Client::Document, &nginx.url(&show.path())).as_str());
    show.goes_on().await;

    show.server_restarts("closed").await;
    show.server_restarts("closed").await;
    show.ends().await;

    let page = show.pages.report(has_ended).await;
    show.is_whole(&page).await;
    assert!(page["opened"].as_u64() > Some(2), "{page:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_event_source_gets_every_event_once_and_is_told_to_stop() {
    let mut show = Show::begin(Kind::Sqlite).await;
    let stream = show.stage.server.url(&show.path());
    let _browser = Browser::open(show.page(Client::Plain, &stream).as_str());
    show.goes_on().await;

    show.server_restarts("errors").await;
    show.ends().await;

    let page = show.pages.report(|page| page["ready"].as_u64() == Some(CLOSED)).await;
    show.is_whole(&page).await;
    assert_eq!((&page["opened"], &page["closed"]), (&1.into(), &1.into()), "{page:#}");
    let stopped = format!("GET /runs/{}/stream 204", show.run);
    assert!(show.stage.server.log().contains(&stopped), "{}", show.stage.server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_in_the_documents_browser_client_outlives_the_server() {
    for kind in Kind::ALL {
        let mut show = Show::begin(kind).await;
        let wish = json!({ "runId": show.run });
        let (status, ticket) = show.stage.server.post("/stream-tickets", &wish).await;
        let ticket = ticket["ticket"].as_str().unwrap_or_else(|| panic!("{status}: {ticket}"));
        let path = format!("{}&ticket={ticket}", show.path());
        let server = &show.stage.server;
        let nginx = Nginx::in_front_of(&server.base_url(), Compression::Gzip).await;
        let _browser = Browser::open(show.page(Client::Document, &nginx.url(&path)).as_str());
        show.goes_on().await;

        show.server_restarts("closed").await;
        show.ends().await;

        let page = show.pages.report(has_ended).await;
        show.is_whole(&page).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_browser_client_gets_its_end_even_if_the_network_breaks_just_before_it() {
    let mut show = Show::begin(Kind::Sqlite).await;
    show.ends().await;
    let last = show.events().await;
    let port = show.stage.server.port();
    let cuts = [
        Cut::Within("\nid: 2\ndata: {".to_owned()),
        Cut::After("\nid: 3\n".to_owned()),
        Cut::After(format!("\nid: {last}\n")),
    ];
    let network = Network::before(port, cuts).await;

    let address = show.page(Client::Document, &network.url(&show.path()));
    let _browser = Browser::open(address.as_str());

    let page = show.pages.report(has_ended).await;
    show.is_whole(&page).await;
    assert_eq!(network.remaining(), 0);
    assert_eq!(page["closed"], 1, "by the 204 after the last event: {page:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_browser_client_starts_again_when_the_log_is_another() {
    let mut show = Show::begin(Kind::Sqlite).await;
    show.ends().await;
    let path = format!("/runs/{}/stream?afterSeq=3&logId=the-log-before", show.run);

    let address = show.page(Client::Document, &show.stage.server.url(&path));
    let _browser = Browser::open(address.as_str());

    let page = show.pages.report(has_ended).await;
    assert_eq!(seen(&page), all(show.events().await), "{page:#}");
    assert_eq!(page["resets"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_shows_a_run_in_a_browser() {
    let mut show = Show::begin(Kind::Sqlite).await;
    show.ends().await;
    let mut address = show.page(Client::Document, &show.stage.server.url(&show.path()));
    address.query_pairs_mut().append_key_only("picture");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));

    Browser::picture(address.as_str(), &folder.join("a-run-in-a-browser.png"), DEADLINE).await;

    let page = show.pages.report(has_ended).await;
    show.is_whole(&page).await;
}
