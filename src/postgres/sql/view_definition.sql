select pg_catalog.format('%I.%I', n.nspname, c.relname),
       pg_catalog.format(
           'create view %I.%I%s as %s', n.nspname, c.relname,
           case when c.reloptions is null then '' else ' with (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')' end,
           pg_catalog.pg_get_viewdef(c.oid))
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where c.oid = $1::oid
