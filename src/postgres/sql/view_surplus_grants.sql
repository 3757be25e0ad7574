-- $1: a view that has just been made, quoted. What default privileges have granted.
select pg_catalog.format(
           'revoke all on %s from %s', $1::text,
           case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end)
  from pg_catalog.pg_class as c
  cross join lateral pg_catalog.aclexplode(c.relacl) as a
 where c.oid = $1::text::regclass and a.grantee <> c.relowner
 group by a.grantee
