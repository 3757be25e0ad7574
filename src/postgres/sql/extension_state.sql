select exists (select from pg_catalog.pg_extension where extname = 'postgis') as installed,
       exists (select from pg_catalog.pg_available_extensions where name = 'postgis') as available
