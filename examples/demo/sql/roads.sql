-- The main roads by hand, and round every centre a turned grid of streets.
delete from {};
alter table {} drop column version, add column name text not null, add column class text not null;
insert into {} (name, class, geom)
select name, class, public.st_setsrid(public.st_linefromtext('linestring(' || way || ')'), 4283)
from (values
    ('Mitchell Freeway', 'freeway', '115.8570 -31.9510, 115.8300 -31.9200, 115.8050 -31.8700, 115.7800 -31.8000, 115.7500 -31.7300, 115.7150 -31.6600'),
    ('Kwinana Freeway', 'freeway', '115.8570 -31.9510, 115.8550 -31.9900, 115.8560 -32.0400, 115.8560 -32.1200, 115.8400 -32.2400, 115.8200 -32.4300'),
    ('Roe Highway', 'freeway', '115.8560 -32.0800, 115.9300 -32.0600, 115.9900 -31.9900, 116.0100 -31.9300, 116.0150 -31.8700'),
    ('Tonkin Highway', 'freeway', '115.9000 -31.8000, 115.9100 -31.8600, 115.9300 -31.9300, 115.9700 -31.9900, 116.0000 -32.0800, 116.0050 -32.1900'),
    ('Great Eastern Highway', 'highway', '115.9000 -31.9600, 115.9500 -31.9360, 116.0000 -31.8950, 116.0800 -31.8990, 116.1700 -31.9010'),
    ('Albany Highway', 'highway', '115.9000 -31.9780, 115.9400 -32.0250, 115.9900 -32.0900, 116.0100 -32.1500, 116.0700 -32.2300'),
    ('Stirling Highway', 'highway', '115.8300 -31.9550, 115.7900 -31.9800, 115.7600 -32.0250, 115.7480 -32.0500'),
    ('Leach Highway', 'highway', '115.7550 -32.0560, 115.8100 -32.0430, 115.8560 -32.0400, 115.9200 -32.0230, 115.9700 -31.9850'),
    ('Great Northern Highway', 'highway', '116.0060 -31.8890, 116.0100 -31.8300, 116.0400 -31.7300, 116.0300 -31.6500'),
    ('Wanneroo Road', 'highway', '115.8550 -31.9300, 115.8400 -31.8700, 115.8100 -31.7900, 115.7900 -31.7000')
) as road (name, class, way);
insert into {} (name, class, geom)
select initcap(centre.name) || ' street ' || n || side.name, 'street',
    public.st_setsrid(public.st_translate(public.st_rotate(
        public.st_makeline(public.st_makepoint(side.ax * n * 0.0022 - side.ay * 0.018, side.ay * n * 0.0022 - side.ax * 0.018),
                           public.st_makepoint(side.ax * n * 0.0022 + side.ay * 0.018, side.ay * n * 0.0022 + side.ax * 0.018)),
        centre.turn), centre.x, centre.y), 4283)
from (values
    ('perth', 115.862, -31.948, 0.35), ('fremantle', 115.757, -32.058, 0.9), ('joondalup', 115.766, -31.745, 0.1),
    ('rockingham', 115.745, -32.283, 0.6), ('armadale', 116.012, -32.150, 0.2), ('midland', 116.006, -31.889, 0.7),
    ('cannington', 115.934, -32.017, 0.75), ('scarborough', 115.775, -31.894, 0.05), ('morley', 115.907, -31.887, 0.0),
    ('ellenbrook', 115.969, -31.765, 0.5), ('success', 115.848, -32.143, 0.1), ('subiaco', 115.820, -31.945, 0.15)
) as centre (name, x, y, turn)
cross join (values ('', 1, 0), (' west', 0, 1)) as side (name, ax, ay)
cross join generate_series(-8, 8) as n;
