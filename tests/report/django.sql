-- The tables of borgcollector's application `monitor`, as its migrations make them.
create table monitor_slaveserver (
    id serial primary key,
    name varchar(64) not null,
    listen_channels varchar(255) not null,
    register_time timestamp with time zone,
    last_poll_time timestamp with time zone,
    last_sync_time timestamp with time zone,
    last_sync_message text,
    code_version varchar(32)
);
create table monitor_publishsyncstatus (
    id serial primary key,
    publish varchar(255) not null,
    spatial_type varchar(255),
    deploied_job_id integer,
    deploied_job_batch_id varchar(64),
    deploy_message text,
    deploy_time timestamp with time zone,
    preview_file varchar(100),
    sync_job_id integer,
    sync_job_batch_id varchar(64),
    sync_message text,
    sync_time timestamp with time zone,
    slave_server_id integer not null references monitor_slaveserver (id) deferrable initially deferred,
    unique (slave_server_id, publish)
);
create table monitor_tasksyncstatus (
    id serial primary key,
    task_type varchar(255) not null,
    task_name varchar(255) not null,
    action varchar(32) not null,
    preview_file varchar(100),
    sync_succeed boolean not null,
    sync_message text,
    sync_time timestamp with time zone,
    slave_server_id integer not null references monitor_slaveserver (id) deferrable initially deferred,
    unique (slave_server_id, task_type, task_name, action)
);
