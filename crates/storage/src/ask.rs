//! How a query of the shared modules is run, on whichever database there is.
//!
//! **Invariant:** these two macros are the only places that choose a backend for a query, so that
//! reads are tried again and writes are settled in one way.

/// Runs one query of the shared modules on a connection that reads. Its arguments are owned by the
/// caller: they move into a task. A caller may be dropped at any time, but dropping a future of
/// diesel-async midway costs PostgreSQL its connection, and on SQLite it blocks its thread until the
/// query is done, and panics where actix's handlers run.
macro_rules! read {
    ($self:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        match &$self.0.backend {
            $crate::store::Backend::Postgres(_) => {
                $self
                    .task(move |store: $crate::store::Store| async move {
                        let db = store.postgres()?;
                        let mut conn = db.connection().await?;
                        let mut done =
                            $crate::postgres::$module::$function(&mut *conn, $($argument),*).await;
                        $crate::postgres::settle(conn, &done);
                        // The server was restarted while the connection was idle: a read is free to
                        // try another one.
                        if let Err($crate::error::Error::Unavailable(_)) = &done {
                            let mut conn = db.connection().await?;
                            done =
                                $crate::postgres::$module::$function(&mut *conn, $($argument),*).await;
                            $crate::postgres::settle(conn, &done);
                        }
                        done
                    })
                    .await
            }
            $crate::store::Backend::Sqlite(_) => {
                $self
                    .task(move |store: $crate::store::Store| async move {
                        let mut conn = store.sqlite()?.read().await?;
                        let done = $crate::sqlite::$module::$function(&mut *conn, $($argument),*).await;
                        $crate::sqlite::settle(conn, &done);
                        done
                    })
                    .await
            }
        }
    };
}

/// The same on a connection that writes. The caller is already in a task of its own.
macro_rules! change {
    ($store:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        match &$store.0.backend {
            $crate::store::Backend::Postgres(db) => {
                let mut conn = db.connection().await?;
                let done = $crate::postgres::$module::$function(&mut *conn, $($argument),*).await;
                $crate::postgres::settle(conn, &done);
                done
            }
            $crate::store::Backend::Sqlite(db) => {
                let mut writer = db.write().await?;
                let done =
                    $crate::sqlite::$module::$function(writer.connection()?, $($argument),*).await;
                writer.settle(&done);
                done
            }
        }
    };
}
