-- Towns and suburbs of Perth, by their centres.
delete from {};
alter table {} drop column version, add column name text not null, add column class text not null;
insert into {} (name, class, geom)
select name, class, public.st_setsrid(public.st_makepoint(x, y), 4283)
from (values
    ('Perth', 'city', 115.8605, -31.9505), ('Fremantle', 'city', 115.7439, -32.0569),
    ('Joondalup', 'city', 115.7660, -31.7450), ('Rockingham', 'city', 115.7297, -32.2806),
    ('Armadale', 'city', 116.0093, -32.1530), ('Midland', 'town', 116.0064, -31.8890),
    ('Kwinana', 'town', 115.7700, -32.2390), ('Cannington', 'suburb', 115.9340, -32.0170),
    ('Scarborough', 'suburb', 115.7580, -31.8940), ('Kalamunda', 'town', 116.0580, -31.9740),
    ('Ellenbrook', 'town', 115.9690, -31.7650), ('Wanneroo', 'town', 115.8030, -31.7500),
    ('Mundaring', 'town', 116.1680, -31.9020), ('Victoria Park', 'suburb', 115.9050, -31.9760),
    ('Subiaco', 'suburb', 115.8270, -31.9490), ('Morley', 'suburb', 115.9070, -31.8870),
    ('Success', 'suburb', 115.8480, -32.1430), ('Byford', 'town', 116.0100, -32.2210),
    ('Canning Vale', 'suburb', 115.9180, -32.0780), ('Mirrabooka', 'suburb', 115.8650, -31.8600)
) as town (name, class, x, y);
