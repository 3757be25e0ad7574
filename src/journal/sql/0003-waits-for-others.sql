-- The job failed because another one had: it is tried again whenever anything else is.
alter table job add column waits_for_others integer not null default 0;
