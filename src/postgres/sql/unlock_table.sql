select pg_catalog.pg_advisory_unlock(1651470951, pg_catalog.hashtext($1::text || '.' || $2::text))
