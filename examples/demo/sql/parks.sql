-- Parks as rounded areas about their size in hectares.
delete from {};
alter table {} drop column version, add column name text not null, add column hectares integer not null;
insert into {} (name, hectares, geom)
select name, hectares, public.st_buffer(public.st_setsrid(public.st_makepoint(x, y), 4283), sqrt(hectares) * 0.00055, 6)
from (values
    ('Kings Park', 400, 115.8320, -31.9610), ('Bold Park', 437, 115.7720, -31.9450), ('Whiteman Park', 4000, 115.9350, -31.8250),
    ('Yellagonga', 1400, 115.7780, -31.7750), ('Lake Monger', 110, 115.8270, -31.9290), ('Thomsons Lake', 550, 115.8280, -32.1520),
    ('Forrestdale Lake', 240, 115.9380, -32.1600), ('Piney Lakes', 68, 115.8340, -32.0480), ('Star Swamp', 96, 115.7560, -31.8570)
) as park (name, hectares, x, y);
