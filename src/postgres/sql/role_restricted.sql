-- $1: the role named as the schema, $2: the shared role. The new role may log in when the shared one may.
with me as (select oid, rolinherit from pg_catalog.pg_roles where rolname = current_user)
select pg_catalog.format(
           'create role %I inherit %s', $1::text,
           case when (select rolcanlogin from pg_catalog.pg_roles where rolname = $2::text) then 'login' else 'nologin' end)
 where not exists (select from pg_catalog.pg_roles where rolname = $1::text)
union all
select pg_catalog.format('grant %I to %I', $2::text, $1::text)
 where not exists (
        select
          from pg_catalog.pg_auth_members as m
          join pg_catalog.pg_roles as r on r.oid = m.roleid
          join pg_catalog.pg_roles as s on s.oid = m.member
         where r.rolname = $2::text and s.rolname = $1::text)
union all
select pg_catalog.format('grant %I to %I', $1::text, current_user)
  from me
 where current_user <> $1::text
   and not exists (
        select
          from pg_catalog.pg_auth_members as m
          join pg_catalog.pg_roles as r on r.oid = m.roleid
         where r.rolname = $1::text and m.member = me.oid
           and (not me.rolinherit or coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true)))
