-- Class 0x626f7267 ("borg"); the second key is the layer. The holder's process helps the operator.
with key as (select pg_catalog.hashtext($1::text || '.' || $2::text) as layer)
select pg_catalog.pg_try_advisory_lock(1651470951, layer) as taken,
       (select pid
          from pg_catalog.pg_locks
         where locktype = 'advisory' and classid = 1651470951 and objid::bigint = (layer::bigint & 4294967295)
           and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
           and granted
         limit 1) as holder
  from key
