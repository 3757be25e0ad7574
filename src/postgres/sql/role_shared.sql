-- $1: the shared role. An existing one keeps its attributes.
with me as (select oid, rolinherit from pg_catalog.pg_roles where rolname = current_user)
select pg_catalog.format('create role %I nologin noinherit', $1::text)
 where not exists (select from pg_catalog.pg_roles where rolname = $1::text)
union all
select pg_catalog.format('grant %I to %I', $1::text, current_user)
  from me
 where current_user <> $1::text
   and not exists (
        select
          from pg_catalog.pg_auth_members as m
          join pg_catalog.pg_roles as r on r.oid = m.roleid
         where r.rolname = $1::text and m.member = me.oid
           -- from PostgreSQL 16 on, who creates a role is a member without its privileges at first
           and (not me.rolinherit or coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true)))
