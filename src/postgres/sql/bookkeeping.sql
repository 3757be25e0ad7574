create schema if not exists borg_slave;
comment on schema borg_slave is 'What borg-slave has published here. Dropping it is safe: everything is published once more.';
create table if not exists borg_slave.published (
    schema_name text not null,
    name text not null,
    data_oid oid,
    md5 text,
    published_at timestamp with time zone,
    loaded_oid oid,
    loaded_md5 text,
    outdated_oid oid,
    primary key (schema_name, name)
);
comment on column borg_slave.published.data_oid is 'the table that the view reads';
comment on column borg_slave.published.md5 is 'the dump from which it was restored';
comment on column borg_slave.published.loaded_oid is 'a table that is loaded but not published yet';
comment on column borg_slave.published.outdated_oid is 'the published table while its successor is loaded';
