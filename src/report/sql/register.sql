insert into {schema}.monitor_slaveserver (name, listen_channels, register_time, code_version)
values ($1::text, $2::text, $3::timestamptz, $4::text)
returning id::bigint
