select a.attname::text,
       t.typname::text,
       a.attnotnull,
       case when t.typname = 'geometry' then postgis_typmod_type(a.atttypmod) end,
       case when t.typname = 'geometry' then postgis_typmod_srid(a.atttypmod) end,
       exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary and a.attnum = any (i.indkey))
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
 where n.nspname = $1
   and c.relname = $2
 order by a.attnum
