-- $1 data schema, $2 name
select exists (
    select
      from pg_catalog.pg_class as d
      join pg_catalog.pg_namespace as n on n.oid = d.relnamespace
     where n.nspname = $1::text and d.relname = $2::text
       and (exists (select from borg_slave.published as b where d.oid in (b.data_oid, b.loaded_oid))
            or exists (
                select
                  from pg_catalog.pg_depend as p
                  join pg_catalog.pg_rewrite as r on r.oid = p.objid
                  join pg_catalog.pg_class as v on v.oid = r.ev_class and v.relkind = 'v' and v.relname = d.relname
                 where p.classid = 'pg_catalog.pg_rewrite'::regclass
                   and p.refclassid = 'pg_catalog.pg_class'::regclass and p.refobjid = d.oid)))
