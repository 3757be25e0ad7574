update {schema}.monitor_slaveserver
set listen_channels = $2::text, last_poll_time = $3::timestamptz, code_version = $4::text
where id = $1::bigint
