-- What the master is still to be told: the newest state of each subject. Numbers are never used again, so
-- that a report that was sent is not mistaken for the one that has taken its place meanwhile.
create table report (
    id integer primary key autoincrement,
    subject text not null unique,
    payload text not null,
    -- Since when there is something to tell about the subject.
    since integer not null,
    -- Why the master refused it, when it has.
    refused text
) strict;
