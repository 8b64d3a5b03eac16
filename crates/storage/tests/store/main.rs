//! What a [`control_plane_storage::Store`] promises, held against real databases of both kinds.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

/// Makes a test of each function, once per kind of database.
macro_rules! on_both_databases {
    ($(async fn $name:ident($database:ident: TestDb) $body:block)*) => {$(
        mod $name {
            use control_plane_testkit::database::TestDb;

            #[tokio::test(flavor = "multi_thread")]
            async fn on_sqlite() {
                super::$name(TestDb::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_postgres() {
                super::$name(TestDb::postgres()).await;
            }
        }

        async fn $name($database: TestDb) $body
    )*};
}

mod append;
mod broken;
mod canceled;
mod create;
mod delete;
mod discovery;
mod duties;
mod falling;
mod feed;
mod feed_follow;
mod feed_property;
mod filing;
mod follow;
mod hints;
mod inbox;
mod interleavings;
mod lists;
mod loading;
mod only_sqlite;
mod ownership;
mod poison;
mod server;
mod signals;
mod snapshots;
mod support;
mod tickets;
