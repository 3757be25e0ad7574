update job set
    state = ?2,
    message = ?3,
    hint = ?4,
    finished = ?5,
    next_try = ?6,
    waits_for_others = ?7,
    deployed_content_md5 = iif(?2 != 'succeeded', deployed_content_md5, iif(action = 'remove', null, content_md5)),
    deployed_revision = iif(?2 != 'succeeded', deployed_revision, iif(action = 'remove', null, revision)),
    deployed_job_id = iif(?2 != 'succeeded', deployed_job_id, iif(action = 'remove', null, job_id)),
    deployed_job_batch_id = iif(?2 != 'succeeded', deployed_job_batch_id, iif(action = 'remove', null, job_batch_id)),
    deployed_at = iif(?2 != 'succeeded', deployed_at, iif(action = 'remove', null, ?5))
where job_file = ?1
