insert into job (
    job_file, kind, action, content_md5, revision, job_id, job_batch_id,
    state, message, hint, attempts, first_seen, finished, run,
    deployed_content_md5, deployed_revision, deployed_job_id, deployed_job_batch_id, deployed_at
)
select
    ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?11, ?12,
    iif(?8 = 'succeeded' and ?3 != 'remove', ?4, null),
    iif(?8 = 'succeeded' and ?3 != 'remove', ?5, null),
    iif(?8 = 'succeeded' and ?3 != 'remove', ?6, null),
    iif(?8 = 'succeeded' and ?3 != 'remove', ?7, null),
    iif(?8 = 'succeeded' and ?3 != 'remove', ?11, null)
where true
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
    run = excluded.run,
    deployed_content_md5 = iif(excluded.state = 'succeeded', excluded.deployed_content_md5, deployed_content_md5),
    deployed_revision = iif(excluded.state = 'succeeded', excluded.deployed_revision, deployed_revision),
    deployed_job_id = iif(excluded.state = 'succeeded', excluded.deployed_job_id, deployed_job_id),
    deployed_job_batch_id = iif(excluded.state = 'succeeded', excluded.deployed_job_batch_id, deployed_job_batch_id),
    deployed_at = iif(excluded.state = 'succeeded', excluded.deployed_at, deployed_at)
where (job.content_md5, job.action, job.state) != (excluded.content_md5, excluded.action, excluded.state)
    or job.message is not excluded.message
    or job.hint is not excluded.hint
returning id
