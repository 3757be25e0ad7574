select job_file
from job
where (?2 is null or iif(state = 'running' and ?1, 'interrupted', state) in (select value from json_each(?2)))
    and (?3 = '' or instr(lower(job_file), lower(?3)) > 0 or instr(lower(coalesce(message, '')), lower(?3)) > 0)
order by job_file
