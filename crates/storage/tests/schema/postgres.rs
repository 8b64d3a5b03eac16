//! What PostgreSQL's catalogue says.

use tokio_postgres::{Client, NoTls};

use crate::{Column, Tables};

const COLUMNS: &str = "
    SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped AND c.relname NOT LIKE '\\_\\_diesel%'";

/// One line for everything that a dump of the schema would show.
const DUMP: &str = "
    SELECT format('column %s.%s %s %s %s', c.relname, a.attname,
                  format_type(a.atttypid, a.atttypmod), a.attnotnull,
                  pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
      AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT format('sequence %s %s', sequencename, data_type)
    FROM pg_sequences WHERE schemaname = 'public'
    UNION ALL
    SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT format('type %s', typname) FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
    ORDER BY 1";

/// Foreign keys whose columns are not the first ones of any complete index.
const BARE_KEYS: &str = "
    SELECT format('%s on %s', k.conname, k.conrelid::regclass)
    FROM pg_constraint k
    WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND NOT EXISTS (
        SELECT 1 FROM pg_index i
        WHERE i.indrelid = k.conrelid AND i.indpred IS NULL AND i.indisvalid
          AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
    ORDER BY 1";

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn execute(client: &Client, statements: &[String]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
}

pub(crate) async fn tables(client: &Client) -> Tables {
    let mut tables = Tables::new();
    for row in client.query(COLUMNS, &[]).await.unwrap() {
        let column = Column { kind: row.get(2), nullable: row.get(3) };
        tables.entry(row.get(0)).or_default().insert(row.get(1), column);
    }
    tables
}

pub(crate) async fn dump(client: &Client) -> Vec<String> {
    lines(client, DUMP).await
}

pub(crate) async fn foreign_keys_without_index(client: &Client) -> Vec<String> {
    lines(client, BARE_KEYS).await
}

async fn lines(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
