update {schema}.monitor_slaveserver
set
    last_sync_time = $2::timestamptz,
    last_sync_message = $3::text,
    listen_channels = coalesce($4::text, listen_channels),
    code_version = coalesce($5::text, code_version)
where id = $1::bigint
