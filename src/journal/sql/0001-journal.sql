-- Times are microseconds since 1970-01-01 UTC.

-- What is known of each job file. A forgotten one stays as a row with an empty content_md5, so that
-- the next run finds it although the cursor has passed its revision.
create table job (
    id integer primary key,
    job_file text not null unique,
    kind text not null,
    action text not null,
    content_md5 text not null,
    revision text not null,
    job_id integer,
    job_batch_id text,
    state text not null check (
        state in ('running', 'succeeded', 'failed', 'filtered', 'waiting', 'interrupted', 'forgotten')
    ),
    message text,
    hint text,
    attempts integer not null,
    first_seen integer not null,
    started integer,
    finished integer,
    next_try integer,
    -- No foreign key: the history of runs is shortened, the job keeps the number.
    run integer,
    -- What the last success left in place; null when nothing is.
    deployed_content_md5 text,
    deployed_revision text,
    deployed_job_id integer,
    deployed_job_batch_id text,
    deployed_at integer
) strict;

-- The few jobs that have to be tried again, among the many that need nothing.
create index job_unfinished on job (state) where state in ('running', 'failed', 'interrupted', 'forgotten', 'waiting');

-- The steps of the latest attempt, those that succeeded in earlier attempts at the same content included.
-- target is the empty string for a step that has none: null would not be unique in the key.
create table step (
    job integer not null references job (id) on delete cascade,
    step text not null,
    target text not null,
    position integer not null,
    outcome text not null check (outcome in ('running', 'done', 'unchanged', 'failed', 'skipped')),
    message text,
    started integer not null,
    duration_ms integer not null,
    primary key (job, step, target)
) strict, without rowid;

-- Small facts about what was pushed to a target.
create table marker (
    target text not null,
    key text not null,
    value text not null,
    primary key (target, key)
) strict, without rowid;

-- Facts of which there is one, such as the cursor.
create table fact (
    name text primary key,
    value text not null
) strict, without rowid;

create table run (
    id integer primary key autoincrement,
    started_by text not null,
    from_revision text,
    to_revision text,
    started integer not null,
    finished integer,
    outcome text not null check (outcome in ('running', 'succeeded', 'failed', 'stopped', 'interrupted')),
    succeeded integer not null default 0,
    failed integer not null default 0,
    unchanged integer not null default 0,
    message text
) strict;
