-- $1: the role named as the schema, $2: the shared role. One row when $1 is a role of the slave's making
-- (it inherits the shared role), with the reason why it has to stay, if there is one.
select case
         when exists (
                select from pg_catalog.pg_shdepend
                 where refclassid = 'pg_catalog.pg_authid'::regclass and refobjid = r.oid and deptype = 'o')
           then 'it owns objects'
         when exists (
                select from pg_catalog.pg_shdepend
                 where refclassid = 'pg_catalog.pg_authid'::regclass and refobjid = r.oid
                   and dbid not in (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())))
           then 'it has privileges in another database'
         when exists (
                select from pg_catalog.pg_auth_members as m
                  join pg_catalog.pg_roles as u on u.oid = m.member
                 where m.roleid = r.oid and u.rolname <> current_user)
           then 'other roles are members of it'
       end as in_use
  from pg_catalog.pg_roles as r
  join pg_catalog.pg_auth_members as s on s.member = r.oid
  join pg_catalog.pg_roles as shared on shared.oid = s.roleid and shared.rolname = $2::text
 where r.rolname = $1::text and r.rolname <> current_user and not r.rolsuper
 limit 1
