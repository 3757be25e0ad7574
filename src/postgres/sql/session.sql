-- Every session: names are always qualified, nothing in a writable schema shadows a system object;
-- and (from PostgreSQL 14 on) a statement ends when the slave that asked for it has died.
set search_path = '';
select pg_catalog.set_config(name, '1000', false)
  from pg_catalog.pg_settings
 where name = 'client_connection_check_interval';
