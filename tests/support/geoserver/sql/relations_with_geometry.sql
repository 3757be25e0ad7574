select distinct c.relname::text collate "C"
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid and t.typname in ('geometry', 'geography')
 where n.nspname = $1
   and c.relkind in ('r', 'p', 'v', 'm', 'f')
 order by 1
