select job_file
from job
where action != 'publish'
    and state in ('succeeded', 'filtered')
    and finished < ?1
    and coalesce(run, 0) <= (select coalesce(max(cast(value as integer)), 0) from fact where name = 'cursor run')
