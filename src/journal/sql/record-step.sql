insert into step (job, step, target, position, outcome, message, started, duration_ms)
select
    job.id, ?2, ?3,
    (select coalesce(max(earlier.position), 0) + 1 from step as earlier where earlier.job = job.id),
    ?4, ?5, ?6, ?7
from job
where job.job_file = ?1
on conflict (job, step, target) do update set
    outcome = excluded.outcome,
    message = excluded.message,
    started = excluded.started,
    duration_ms = excluded.duration_ms
