insert into job (
    job_file, kind, action, content_md5, revision, job_id, job_batch_id, state, attempts, first_seen, started, run
)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', 1, ?8, ?8, ?9)
on conflict (job_file) do update set
    attempts = iif(content_md5 = excluded.content_md5 and action = excluded.action, attempts + 1, 1),
    kind = excluded.kind,
    action = excluded.action,
    content_md5 = excluded.content_md5,
    revision = excluded.revision,
    job_id = excluded.job_id,
    job_batch_id = excluded.job_batch_id,
    state = 'running',
    message = null,
    hint = null,
    started = excluded.started,
    finished = null,
    next_try = null,
    waits_for_others = 0,
    run = excluded.run
returning id, attempts
