select attname::text, pg_catalog.format_type(atttypid, atttypmod), attcollation
  from pg_catalog.pg_attribute
 where attrelid = $1::oid and attnum > 0 and not attisdropped
 order by attnum
