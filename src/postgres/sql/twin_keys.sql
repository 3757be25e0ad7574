-- $1: the table that the twins point to.
select pg_catalog.format('alter table %I.%I drop constraint %I', n.nspname, c.relname, k.conname)
  from pg_catalog.pg_constraint as k
  join pg_catalog.pg_class as c on c.oid = k.conrelid
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where k.contype = 'f' and k.confrelid = $1::oid and k.conparentid = 0 and k.conname like 'borg\_slave\_fk\_%'
