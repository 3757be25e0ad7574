select k.convalidated
  from pg_catalog.pg_constraint as k
  join pg_catalog.pg_class as c on c.oid = k.conrelid
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = $1::text and c.relname = $2::text and k.conname = $3::text and k.contype = 'f'
