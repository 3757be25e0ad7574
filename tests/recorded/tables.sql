create extension postgis;
create schema publish_data;
create schema publish;
create table publish_data.roads as
select i as gid,
       'Road ' || i as name,
       'sealed'::text as kind,
       1 + (i - 1) % 4 as lanes,
       i * 1.5::float8 as len,
       date '2020-01-01' + i as opened,
       timestamp '2024-01-01' + i * interval '1 hour' as updated,
       st_setsrid(st_makeline(st_makepoint((11500 + i) / 100.0, (i - 3200) / 100.0),
                              st_makepoint((11505 + i) / 100.0, (i - 3190) / 100.0)), 4326)::geometry(linestring, 4326) as geom
  from generate_series(1, 50) as i;
alter table publish_data.roads add primary key (gid);
create table publish_data.sites as
select i as id,
       'S' || i as name,
       st_setsrid(st_makepoint((1150 + i) / 10.0, (-3200 - 5 * i) / 100.0), 4326)::geometry(point, 4326) as geom
  from generate_series(1, 30) as i;
alter table publish_data.sites add primary key (id);
create table publish_data.nopk as select name, geom from publish_data.sites order by id;
create table publish_data.parcels as
select i as ogc_fid,
       'P' || i as label,
       10.25::numeric as area,
       st_multi(st_setsrid(st_makepolygon(st_makeline(array[
           st_makepoint((11600 + 10 * i) / 100.0, -33), st_makepoint((11600 + 10 * i) / 100.0, -32.9),
           st_makepoint((11605 + 10 * i) / 100.0, -32.9), st_makepoint((11605 + 10 * i) / 100.0, -33),
           st_makepoint((11600 + 10 * i) / 100.0, -33)])), 4283))::geometry(multipolygon, 4283) as wkb_geometry
  from generate_series(1, 20) as i;
create table publish_data.grid50 as
select i as id,
       'G' || i as name,
       st_setsrid(st_makepoint(400000 + 1000 * i, 6400000 + 1000 * i), 28350)::geometry(point, 28350) as geom
  from generate_series(1, 10) as i;
create table publish_data.emptyt (id int, name text, geom geometry(polygon, 4326));
create view publish.roads as select * from publish_data.roads;
create view publish.sites as select * from publish_data.sites;
create view publish.parcels as select * from publish_data.parcels;
create view publish.grid50 as select * from publish_data.grid50;
create view publish.emptyt as select * from publish_data.emptyt;
create view publish.nogeom as select id, name from publish_data.sites;
create view publish.castgeom as select id, name, geom::geometry as geom from publish_data.sites;
create view publish.anygeom as select id, name, geom::geometry as geom from publish_data.sites;
create view publish.big as select * from publish_data.sites;
do $$
begin
  for i in 0..399 loop
    execute format('create view publish.%I as select * from publish_data.sites', 'v_' || lpad(i::text, 3, '0'));
  end loop;
  for i in 0..49 loop
    execute format('create view publish.%I as select * from publish_data.sites', 'big_' || lpad(i::text, 3, '0'));
  end loop;
end
$$;
