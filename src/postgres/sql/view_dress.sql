-- What hangs on view $1: (statement that makes it again, column that it needs), owner first.
with me as (
    select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) as name, c.relowner, c.relacl, c.reloptions
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.oid = $1::oid
), dress (step, statement, column_name) as (
    select 1, pg_catalog.format('alter view %s owner to %I', me.name, o.rolname), null::text
      from me join pg_catalog.pg_roles as o on o.oid = me.relowner
     where o.rolname <> current_user
    union all
    select 2, pg_catalog.format('alter view %s set (%s)', me.name, pg_catalog.array_to_string(me.reloptions, ', ')), null
      from me
     where me.reloptions is not null
    union all
    select 3,
           pg_catalog.format(
               'grant %s on %s to %s%s', a.privilege_type, me.name,
               case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(g.rolname) end,
               case when a.is_grantable then ' with grant option' else '' end),
           null
      from me
      cross join lateral pg_catalog.aclexplode(me.relacl) as a
      left join pg_catalog.pg_roles as g on g.oid = a.grantee
     where a.grantee <> me.relowner
    union all
    select 4,
           pg_catalog.format(
               'grant %s (%I) on %s to %s%s', a.privilege_type, c.attname, me.name,
               case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(g.rolname) end,
               case when a.is_grantable then ' with grant option' else '' end),
           c.attname::text
      from me
      join pg_catalog.pg_attribute as c on c.attrelid = me.oid and c.attnum > 0 and not c.attisdropped
      cross join lateral pg_catalog.aclexplode(c.attacl) as a
      left join pg_catalog.pg_roles as g on g.oid = a.grantee
     where a.grantee <> me.relowner
    union all
    select 5, pg_catalog.format('comment on view %s is %L', me.name, d.description), null
      from me
      join pg_catalog.pg_description as d
        on d.objoid = me.oid and d.classoid = 'pg_catalog.pg_class'::regclass and d.objsubid = 0
    union all
    select 6, pg_catalog.format('comment on column %s.%I is %L', me.name, c.attname, d.description), c.attname::text
      from me
      join pg_catalog.pg_description as d on d.objoid = me.oid and d.classoid = 'pg_catalog.pg_class'::regclass
      join pg_catalog.pg_attribute as c on c.attrelid = me.oid and c.attnum = d.objsubid and c.attnum > 0
    union all
    select 7,
           pg_catalog.format('alter view %s alter column %I set default %s', me.name, c.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid)),
           c.attname::text
      from me
      join pg_catalog.pg_attrdef as d on d.adrelid = me.oid
      join pg_catalog.pg_attribute as c on c.attrelid = me.oid and c.attnum = d.adnum
    union all
    select 8, pg_catalog.pg_get_ruledef(r.oid), null
      from me
      join pg_catalog.pg_rewrite as r on r.ev_class = me.oid and r.rulename <> '_RETURN'
    union all
    select 9, pg_catalog.pg_get_triggerdef(t.oid), null
      from me
      join pg_catalog.pg_trigger as t on t.tgrelid = me.oid and not t.tgisinternal
)
select statement, column_name from dress order by step, statement
