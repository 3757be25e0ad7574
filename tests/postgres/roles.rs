//! Extension, schemas and roles.

use super::*;

/// Roles belong to the whole cluster, so each test has a schema name of its own.
async fn world(schema: &str) -> World {
    let world = World::with_schema(schema).await;
    world.publish(&Dump::new("roads").schema(&format!("{schema}_data")), &table_in(schema, "roads")).await.unwrap();
    world
}

impl World {
    /// Who may read the view now, use the schema, and read what comes later.
    async fn readers(&self, schema: &str, role: &str) -> String {
        self.run(&format!("set role borg; create view {schema}.later as select 1 as one; reset role")).await;
        let answer = self
            .text(&format!(
                "select concat_ws(' ', has_schema_privilege('{role}', '{schema}', 'usage'),
                        has_table_privilege('{role}', '{schema}.roads', 'select'),
                        has_table_privilege('{role}', '{schema}.later', 'select'))"
            ))
            .await;
        self.run(&format!("drop view {schema}.later")).await;
        answer
    }

    /// Changes whenever anything in the catalogs of rights was written.
    async fn catalog_rows(&self) -> String {
        self.text(
            "select string_agg(x, ',' order by x) from (
                select 'n' || xmin from pg_namespace union all select 'c' || xmin from pg_class where relkind = 'v'
                union all select 'd' || xmin from pg_default_acl) as t(x)",
        )
        .await
    }
}

#[tokio::test]
async fn levels_restrict_and_open_again() {
    // Roles are the cluster's, which other tests share: no other has a schema of this name.
    let world = world("vault").await;
    let schema = ident("vault");
    let database = &world.database;
    database.apply_access(&schema, Access::Shared).await.unwrap();
    assert_eq!(world.readers("vault", "sso_access").await, "t t t");
    assert_eq!(world.text("select pg_has_role('borg', 'sso_access', 'member')::text").await, "true");
    let rows = world.catalog_rows().await;
    database.apply_access(&schema, Access::Shared).await.unwrap();
    assert_eq!(world.catalog_rows().await, rows, "a right state is not written again");

    database.apply_access(&schema, Access::Restricted).await.unwrap();
    assert_eq!(world.readers("vault", "sso_access").await, "f f f");
    assert_eq!(world.readers("vault", "vault").await, "t t t");
    assert_eq!(world.text("select pg_has_role('vault', 'sso_access', 'usage')::text").await, "true");
    assert_eq!(world.text("select pg_has_role('borg', 'vault', 'member')::text").await, "true");
    let rows = world.catalog_rows().await;
    database.apply_access(&schema, Access::Restricted).await.unwrap();
    assert_eq!(world.catalog_rows().await, rows);

    database.apply_access(&schema, Access::Shared).await.unwrap();
    assert_eq!(world.readers("vault", "sso_access").await, "t t t");
    assert_eq!(world.text("select count(*)::text from pg_roles where rolname = 'vault'").await, "0");
    // The rights of a republished layer are those of the schema.
    let roads = table_in("vault", "roads");
    world.publish(&Dump::new("roads").schema("vault_data").first_column("x integer"), &roads).await.unwrap();
    assert_eq!(world.readers("vault", "sso_access").await, "t t t");
}

#[tokio::test]
async fn a_foreign_role_of_the_schemas_name_is_not_dropped() {
    let world = world("precious").await;
    world.run("create role precious login; create table public.owned (id integer); alter table public.owned owner to precious").await;
    let schema = ident("precious");
    world.database.apply_access(&schema, Access::Shared).await.unwrap();
    world.run("grant sso_access to precious").await;
    world.database.apply_access(&schema, Access::Shared).await.unwrap();
    assert_eq!(world.text("select count(*)::text from pg_roles where rolname = 'precious'").await, "1");
    assert_eq!(world.text("select count(*)::text from public.owned").await, "0");
}

#[tokio::test]
async fn many_at_once_set_up_the_same_things() {
    let db = PrivatePostgres::start().database().await;
    let databases: Vec<Database> = (0..4).map(|_| db.open()).collect();
    let schemas = [ident("Crowd"), ident("Crowd_data")];
    let setups = databases.iter().map(|database| {
        let schemas = &schemas;
        async move {
            database.ensure_extension().await?;
            database.ensure_schemas(&[&schemas[0], &schemas[1]]).await?;
            database.apply_access(&schemas[0], Access::Restricted).await?;
            database.apply_access(&schemas[0], Access::Shared).await
        }
    });
    for done in futures_util::future::join_all(setups).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn the_extension_is_made_or_its_lack_explained() {
    let db = PrivatePostgres::start().empty_database().await;
    let error = db.open().ensure_extension().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.paragraph());
    assert!(error.hint_text().unwrap().contains("create extension postgis"), "{}", error.paragraph());
    assert_eq!(db.open().preflight().await.unwrap().postgis, None);
    let superuser = ConnectOptions {
        host: PrivatePostgres::start().socket_dir().display().to_string(),
        username: Some("postgres".into()),
        password: None,
        ..db.options()
    };
    let database = Database::new(superuser, 1, CancellationToken::new()).unwrap();
    database.ensure_extension().await.unwrap();
    database.ensure_extension().await.unwrap();
    assert!(db.open().preflight().await.unwrap().postgis.is_some());
}
