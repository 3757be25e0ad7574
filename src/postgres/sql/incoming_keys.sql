-- $1: the table that is pointed to. Keys of partitions follow those of their partitioned table.
select k.oid, k.conname::text,
       (select pg_catalog.format('%I.%I', n.nspname, c.relname)
          from pg_catalog.pg_namespace as n where n.oid = c.relnamespace) as owner,
       pg_catalog.pg_get_constraintdef(k.oid) as definition,
       k.convalidated,
       exists (select from borg_slave.published as b where b.outdated_oid = c.oid) as replaced,
       c.relkind = 'p' as partitioned,
       pg_catalog.obj_description(k.oid, 'pg_constraint') as comment,
       (select twin.convalidated
          from pg_catalog.pg_constraint as twin
         where twin.conrelid = k.conrelid and twin.contype = 'f' and twin.conname = 'borg_slave_fk_' || k.oid) as twin
  from pg_catalog.pg_constraint as k
  join pg_catalog.pg_class as c on c.oid = k.conrelid
 where k.contype = 'f' and k.confrelid = $1::oid and k.conrelid <> k.confrelid and k.conparentid = 0
   and k.conname not like 'borg\_slave\_fk\_%'
 order by k.oid
