-- $1 schema of the view, $2 data schema, $3 outdated schema, $4 name
with relation as (
    select c.oid, c.relkind, n.nspname
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.relname = $4::text and n.nspname in ($1::text, $2::text, $3::text)
), read_by_view as (
    select p.refobjid as oid
      from relation as v
      join pg_catalog.pg_rewrite as r on r.ev_class = v.oid
      join pg_catalog.pg_depend as p on p.classid = 'pg_catalog.pg_rewrite'::regclass and p.objid = r.oid
     where v.nspname = $1::text and p.refclassid = 'pg_catalog.pg_class'::regclass
)
select v.oid, v.relkind::text, d.oid, d.relkind::text, o.oid, o.relkind::text,
       exists (select from read_by_view as r where r.oid = d.oid),
       exists (select from read_by_view as r where r.oid = o.oid),
       case when b.data_oid = d.oid then b.md5 end,
       b.loaded_oid, b.loaded_md5
  from (values (1)) as one
  left join relation as v on v.nspname = $1::text
  left join relation as d on d.nspname = $2::text
  left join relation as o on o.nspname = $3::text
  left join borg_slave.published as b on b.schema_name = $1::text and b.name = $4::text
