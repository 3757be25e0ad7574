insert into job (
    job_file, kind, action, content_md5, revision, job_id, job_batch_id,
    state, message, hint, attempts, first_seen, finished, run
)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?11, ?12)
on conflict (job_file) do update set
    kind = excluded.kind,
    action = excluded.action,
    content_md5 = excluded.content_md5,
    revision = excluded.revision,
    job_id = excluded.job_id,
    job_batch_id = excluded.job_batch_id,
    state = excluded.state,
    message = excluded.message,
    hint = excluded.hint,
    attempts = 0,
    started = null,
    finished = excluded.finished,
    next_try = null,
    waits_for_others = 0,
    run = excluded.run
where (job.content_md5, job.action, job.state) != (excluded.content_md5, excluded.action, excluded.state)
    or job.message is not excluded.message
    or job.hint is not excluded.hint
returning id
