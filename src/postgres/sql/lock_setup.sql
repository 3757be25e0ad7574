-- Held to the end of the transaction: "create ... if not exists" of two sessions at once would fail.
set local lock_timeout = '30s';
select pg_catalog.pg_advisory_xact_lock(1651470951, 0)
