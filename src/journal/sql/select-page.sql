select
    id, job_file, kind, action, content_md5, revision, job_id, job_batch_id,
    iif(state = 'running' and ?1, 'interrupted', state) as state, message, hint, attempts,
    first_seen, started, finished, next_try, run,
    deployed_content_md5, deployed_revision, deployed_job_id, deployed_job_batch_id, deployed_at
from job
where (?2 is null or iif(state = 'running' and ?1, 'interrupted', state) in (select value from json_each(?2)))
    and (?3 = '' or instr(lower(job_file), lower(?3)) > 0 or instr(lower(coalesce(message, '')), lower(?3)) > 0)
order by iif(?4, coalesce(finished, started, first_seen), 0) desc, job_file
limit ?5 offset ?6
