update {schema}.monitor_slaveserver
set last_sync_time = $2::timestamptz, last_sync_message = $3::text
where id = $1::bigint
