insert into borg_slave.published as b (schema_name, name, data_oid, md5, published_at)
values ($1::text, $2::text, $3::oid, $4::text, pg_catalog.now())
on conflict (schema_name, name) do update
   set data_oid = excluded.data_oid, md5 = excluded.md5, published_at = excluded.published_at,
       loaded_oid = null, loaded_md5 = null, outdated_oid = null
