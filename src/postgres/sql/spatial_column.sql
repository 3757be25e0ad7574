-- The modifier of a spatial column, and the schema in which the extension keeps its functions.
select xn.nspname::text, a.atttypmod
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_catalog.pg_type as t on t.oid = a.atttypid and t.typname in ('geometry', 'geography')
  join pg_catalog.pg_extension as x on x.extname = 'postgis' and x.extnamespace = t.typnamespace
  join pg_catalog.pg_namespace as xn on xn.oid = x.extnamespace
 where n.nspname = $1::text and c.relname = $2::text and a.attname = $3::text and a.atttypmod >= 0
