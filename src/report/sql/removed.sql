with failed_removal as (
    delete from {schema}.monitor_tasksyncstatus
    where slave_server_id = $1::bigint and task_type = 'feature' and task_name = $3::text and action = 'remove'
)
delete from {schema}.monitor_publishsyncstatus
where slave_server_id = $1::bigint and publish = $2::text
