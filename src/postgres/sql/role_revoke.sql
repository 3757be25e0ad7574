-- $1: schema, $2: role that shall not read it. The slave's own role keeps what it has.
with loser as (select oid from pg_catalog.pg_roles where rolname = $2::text and rolname <> current_user),
     home as (select oid, nspacl, nspowner from pg_catalog.pg_namespace where nspname = $1::text)
select pg_catalog.format('revoke all on schema %I from %I', $1::text, $2::text)
  from home, loser
 where home.nspowner <> loser.oid
   and exists (select from pg_catalog.aclexplode(home.nspacl) as a where a.grantee = loser.oid)
union all
select pg_catalog.format('revoke all on %I.%I from %I', $1::text, c.relname, $2::text)
  from home
  join pg_catalog.pg_class as c on c.relnamespace = home.oid
  cross join loser
 where c.relkind in ('r', 'v', 'm', 'f', 'p')
   and c.relowner <> loser.oid
   and pg_catalog.pg_has_role(c.relowner, 'usage')
   and exists (select from pg_catalog.aclexplode(c.relacl) as a where a.grantee = loser.oid)
union all
select pg_catalog.format('alter default privileges in schema %I revoke all on tables from %I', $1::text, $2::text)
  from home, loser
 where exists (
        select
          from pg_catalog.pg_default_acl as d
          cross join lateral pg_catalog.aclexplode(d.defaclacl) as a
         where d.defaclnamespace = home.oid and d.defaclobjtype = 'r'
           and d.defaclrole = (select oid from pg_catalog.pg_roles where rolname = current_user)
           and a.grantee = loser.oid)
