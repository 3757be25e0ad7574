select p.tuples_processed
  from pg_catalog.pg_stat_progress_copy as p
  join pg_catalog.pg_stat_activity as a on a.pid = p.pid
 where a.application_name = $1::text
 limit 1
