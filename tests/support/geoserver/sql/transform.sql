select st_xmin(moved), st_xmax(moved), st_ymin(moved), st_ymax(moved)
  from (select st_transform(st_segmentize(st_makeenvelope($1, $2, $3, $4, $5::int), greatest($3 - $1, $4 - $2) / 20), $6::int) as moved) as box
