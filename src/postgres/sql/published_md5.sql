-- $1 schema of the view, $2 data schema, $3 name: only while the view reads the recorded table.
select b.md5
  from borg_slave.published as b
  join pg_catalog.pg_class as d on d.oid = b.data_oid and d.relname = $3::text
  join pg_catalog.pg_namespace as dn on dn.oid = d.relnamespace and dn.nspname = $2::text
  join pg_catalog.pg_class as v on v.relname = $3::text and v.relkind = 'v'
  join pg_catalog.pg_namespace as vn on vn.oid = v.relnamespace and vn.nspname = $1::text
 where b.schema_name = $1::text and b.name = $3::text
   and exists (
       select
         from pg_catalog.pg_rewrite as r
         join pg_catalog.pg_depend as p on p.classid = 'pg_catalog.pg_rewrite'::regclass and p.objid = r.oid
        where r.ev_class = v.oid and p.refclassid = 'pg_catalog.pg_class'::regclass and p.refobjid = d.oid)
