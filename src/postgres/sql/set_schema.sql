-- The statements that move table $1, and the slave's own extended statistics that lie beside it, to schema $2.
select pg_catalog.format('alter table %I.%I set schema %I', n.nspname, c.relname, $2::text)
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where c.oid = $1
 union all
select pg_catalog.format('alter statistics %I.%I set schema %I', n.nspname, s.stxname, $2::text)
  from pg_catalog.pg_statistic_ext as s
  join pg_catalog.pg_namespace as n on n.oid = s.stxnamespace
  join pg_catalog.pg_class as c on c.oid = s.stxrelid and c.relnamespace = s.stxnamespace
 where s.stxrelid = $1 and pg_catalog.pg_has_role(s.stxowner, 'usage')
