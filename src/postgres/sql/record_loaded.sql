-- $1 schema of the view, $2 data schema, $3 name, $4 md5
insert into borg_slave.published as b (schema_name, name, loaded_oid, loaded_md5)
select $1::text, $3::text, c.oid, $4::text
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where c.relname = $3::text and n.nspname = $2::text
on conflict (schema_name, name) do update set loaded_oid = excluded.loaded_oid, loaded_md5 = excluded.loaded_md5
