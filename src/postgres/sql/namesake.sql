-- What has the name $2 in schema $1, and the table that it belongs to.
select case c.relkind when 'i' then 'an index' when 'I' then 'an index' when 'S' then 'a sequence' when 'v' then 'a view'
                      when 'm' then 'a materialized view' when 'c' then 'a type' else 'a table' end,
       (select pg_catalog.format('%I.%I', tn.nspname, t.relname)
          from pg_catalog.pg_class as t
          join pg_catalog.pg_namespace as tn on tn.oid = t.relnamespace
         where t.oid = coalesce(
                   (select i.indrelid from pg_catalog.pg_index as i where i.indexrelid = c.oid),
                   (select p.refobjid
                      from pg_catalog.pg_depend as p
                     where p.classid = 'pg_catalog.pg_class'::regclass and p.objid = c.oid and c.relkind = 'S'
                       and p.refclassid = 'pg_catalog.pg_class'::regclass and p.deptype in ('a', 'i')
                     limit 1)))
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = $1::text and c.relname = $2::text
