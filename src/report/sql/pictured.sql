with publication as (
    update {schema}.monitor_publishsyncstatus
    set preview_file = $6::text
    where slave_server_id = $1::bigint and publish = $2::text
)
update {schema}.monitor_tasksyncstatus
set preview_file = $6::text
where $2::text is null
    and slave_server_id = $1::bigint and task_type = $3::text and task_name = $4::text and action = $5::text
