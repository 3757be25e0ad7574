with known as (
    update {schema}.monitor_publishsyncstatus
    set
        spatial_type = $3::text,
        deploied_job_id = $4::bigint,
        deploied_job_batch_id = $5::text,
        deploy_message = $6::text,
        deploy_time = $7::timestamptz,
        preview_file = $8::text,
        sync_job_id = null,
        sync_job_batch_id = null,
        sync_message = null,
        sync_time = null
    where slave_server_id = $1::bigint and publish = $2::text
    returning 1
)
insert into {schema}.monitor_publishsyncstatus (
    slave_server_id, publish, spatial_type,
    deploied_job_id, deploied_job_batch_id, deploy_message, deploy_time, preview_file
)
select $1::bigint, $2::text, $3::text, $4::bigint, $5::text, $6::text, $7::timestamptz, $8::text
where not exists (select from known)
