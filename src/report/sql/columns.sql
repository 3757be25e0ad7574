-- Which of the columns that reports go to are there, and how many characters fit in. The catalog, and not
-- the information schema, which hides what one has no right to.
select
    wanted.relation,
    wanted.attribute,
    class.oid is not null,
    attribute.attnum is not null,
    case when attribute.atttypid in (1042, 1043) and attribute.atttypmod > 4 then attribute.atttypmod - 4 end
from unnest($1::text[], $2::text[]) with ordinality as wanted (relation, attribute, position)
left join pg_namespace as namespace on namespace.nspname = $3::text
left join pg_class as class on class.relnamespace = namespace.oid and class.relname = wanted.relation
left join pg_attribute as attribute
    on attribute.attrelid = class.oid and attribute.attname = wanted.attribute
    and attribute.attnum > 0 and not attribute.attisdropped
order by wanted.position
