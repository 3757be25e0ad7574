select wanted
  from pg_catalog.unnest($1::text[]) as wanted
 where not exists (select from pg_catalog.pg_namespace where nspname = wanted)
