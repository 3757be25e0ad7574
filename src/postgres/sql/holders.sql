-- Who holds the view or one of its tables: $1 to $3 are the schemas, $4 the name.
select pg_catalog.format(
           'server process %s (%s%s, in a transaction for %s s)', a.pid, a.usename,
           case when a.application_name = '' then '' else ', ' || a.application_name end,
           coalesce(pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)), 0))
  from pg_catalog.pg_stat_activity as a
 where a.pid <> pg_catalog.pg_backend_pid()
   and exists (
       select
         from pg_catalog.pg_locks as l
         join pg_catalog.pg_class as c on c.oid = l.relation and c.relname = $4::text
         join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and n.nspname in ($1::text, $2::text, $3::text)
        where l.pid = a.pid and l.granted
          and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
 order by a.xact_start
 limit 5
