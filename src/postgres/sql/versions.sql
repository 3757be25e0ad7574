select pg_catalog.current_setting('server_version'),
       pg_catalog.current_setting('server_version_num')::integer,
       (select extversion::text from pg_catalog.pg_extension where extname = 'postgis')
