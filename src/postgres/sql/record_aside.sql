insert into borg_slave.published as b (schema_name, name, outdated_oid)
values ($1::text, $2::text, $3::oid)
on conflict (schema_name, name) do update
   set outdated_oid = excluded.outdated_oid, loaded_oid = null, loaded_md5 = null
