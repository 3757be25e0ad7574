-- $1: schema, $2: role that shall read it.
with reader as (select oid from pg_catalog.pg_roles where rolname = $2::text),
     home as (select oid, nspacl, nspowner from pg_catalog.pg_namespace where nspname = $1::text)
select pg_catalog.format('grant usage on schema %I to %I', $1::text, $2::text)
  from home, reader
 where not exists (
        select
          from pg_catalog.aclexplode(coalesce(home.nspacl, pg_catalog.acldefault('n', home.nspowner))) as a
         where a.grantee = reader.oid and a.privilege_type = 'USAGE')
union all
select pg_catalog.format('grant select on %I.%I to %I', $1::text, c.relname, $2::text)
  from home
  join pg_catalog.pg_class as c on c.relnamespace = home.oid
  cross join reader
 where c.relkind in ('r', 'v', 'm', 'f', 'p')
   -- what another role keeps in the schema is its own to grant
   and pg_catalog.pg_has_role(c.relowner, 'usage')
   and not exists (
        select
          from pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) as a
         where a.grantee = reader.oid and a.privilege_type = 'SELECT')
union all
select pg_catalog.format('alter default privileges in schema %I grant select on tables to %I', $1::text, $2::text)
  from home, reader
 where not exists (
        select
          from pg_catalog.pg_default_acl as d
          cross join lateral pg_catalog.aclexplode(d.defaclacl) as a
         where d.defaclnamespace = home.oid and d.defaclobjtype = 'r'
           and d.defaclrole = (select oid from pg_catalog.pg_roles where rolname = current_user)
           and a.grantee = reader.oid and a.privilege_type = 'SELECT')
