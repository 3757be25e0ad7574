-- Lots between the streets, in turned blocks, with their area and use.
delete from {};
alter table {} drop column version, add column lot text not null, add column use text not null, add column area_m2 integer;
insert into {} (lot, use, geom)
select upper(left(centre.name, 3)) || '-' || (line * 100 + lot),
    case when line % 9 = 4 and lot between 10 and 13 then 'reserve'
         when abs(line - 8) < 2 and lot between 6 and 17 then 'business'
         else 'housing' end,
    public.st_setsrid(public.st_translate(public.st_rotate(public.st_makeenvelope(
        (lot - 12) * 0.0015 + 0.0001, (line - 8) * 0.0022 + 0.0002, (lot - 11) * 0.0015 - 0.0001, (line - 7) * 0.0022 - 0.0002),
        centre.turn), centre.x, centre.y), 4283)
from (values
    ('perth', 115.862, -31.948, 0.35), ('fremantle', 115.757, -32.058, 0.9), ('joondalup', 115.766, -31.745, 0.1),
    ('rockingham', 115.745, -32.283, 0.6), ('armadale', 116.012, -32.150, 0.2), ('midland', 116.006, -31.889, 0.7),
    ('cannington', 115.934, -32.017, 0.75), ('scarborough', 115.775, -31.894, 0.05), ('morley', 115.907, -31.887, 0.0),
    ('ellenbrook', 115.969, -31.765, 0.5), ('success', 115.848, -32.143, 0.1), ('subiaco', 115.820, -31.945, 0.15)
) as centre (name, x, y, turn)
cross join generate_series(0, 15) as line
cross join generate_series(0, 23) as lot;
update {} set area_m2 = public.st_area(geom::public.geography)::integer;
