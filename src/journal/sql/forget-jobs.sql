update job set
    state = 'forgotten',
    content_md5 = '',
    message = null,
    hint = null,
    attempts = 0,
    started = null,
    finished = null,
    next_try = null,
    waits_for_others = 0
where job_file in (select value from json_each(?1))
