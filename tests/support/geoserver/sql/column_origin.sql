select a.attnotnull,
       case when t.typname = 'geometry' then postgis_typmod_type(a.atttypmod) end,
       case when t.typname = 'geometry' then postgis_typmod_srid(a.atttypmod) end
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
 where a.attrelid = $1
   and a.attnum = $2
