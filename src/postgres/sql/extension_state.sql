select
    exists (select from pg_catalog.pg_extension where extname = 'postgis') as installed,
    exists (select from pg_catalog.pg_available_extensions where name = 'postgis') as available,
    -- PostgreSQL 12 knows no trusted extensions and has no such column.
    (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
    or not exists (
        select
        from pg_catalog.pg_available_extension_versions as version
        where name = 'postgis' and superuser
            and not coalesce((pg_catalog.to_jsonb(version) ->> 'trusted')::boolean, false)
    ) as may_create
