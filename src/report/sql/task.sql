with known as (
    update {schema}.monitor_tasksyncstatus
    set preview_file = $5::text, sync_succeed = $6::boolean, sync_message = $7::text, sync_time = $8::timestamptz
    where slave_server_id = $1::bigint and task_type = $2::text and task_name = $3::text and action = $4::text
    returning 1
)
insert into {schema}.monitor_tasksyncstatus (
    slave_server_id, task_type, task_name, action, preview_file, sync_succeed, sync_message, sync_time
)
select $1::bigint, $2::text, $3::text, $4::text, $5::text, $6::boolean, $7::text, $8::timestamptz
where not exists (select from known)
