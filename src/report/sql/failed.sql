with known as (
    update {schema}.monitor_publishsyncstatus
    set
        spatial_type = coalesce($3::text, spatial_type),
        sync_job_id = $4::bigint,
        sync_job_batch_id = $5::text,
        sync_message = $6::text,
        sync_time = $7::timestamptz
    where slave_server_id = $1::bigint and publish = $2::text
    returning 1
)
insert into {schema}.monitor_publishsyncstatus (
    slave_server_id, publish, spatial_type, sync_job_id, sync_job_batch_id, sync_message, sync_time
)
select $1::bigint, $2::text, $3::text, $4::bigint, $5::text, $6::text, $7::timestamptz
where not exists (select from known)
