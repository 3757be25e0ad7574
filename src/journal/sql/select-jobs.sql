select
    id, job_file, kind, action, content_md5, revision, job_id, job_batch_id, state, message, hint, attempts,
    first_seen, started, finished, next_try, run,
    deployed_content_md5, deployed_revision, deployed_job_id, deployed_job_batch_id, deployed_at
from job
where ?1 is null or job_file in (select value from json_each(?1))
order by job_file
