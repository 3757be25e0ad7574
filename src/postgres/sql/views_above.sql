-- $1: relations to start from, $2: the layer's own view, $3: the replaced table (both may be null).
-- Views only: what else depends on them makes their DROP fail, and is named by it.
with recursive above (oid, depth) as (
    select root, 0 from pg_catalog.unnest($1::oid[]) as root
    union
    select r.ev_class, above.depth + 1
      from above
      join pg_catalog.pg_depend as d
        on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = above.oid
       and d.classid = 'pg_catalog.pg_rewrite'::regclass
      join pg_catalog.pg_rewrite as r on r.oid = d.objid and r.rulename = '_RETURN'
      join pg_catalog.pg_class as c on c.oid = r.ev_class and c.relkind = 'v'
     where r.ev_class <> above.oid and r.ev_class is distinct from $2::oid and above.depth < 50
)
select above.oid,
       exists (
           select
             from pg_catalog.pg_rewrite as r
             join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
            where r.ev_class = above.oid and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = $3::oid)
         as reads_table
  from above
 where above.depth > 0
 group by above.oid
 order by pg_catalog.max(above.depth), above.oid
