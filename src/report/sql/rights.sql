-- Rights that reports need and this user lacks: on the schema, the tables, and the sequences of their ids.
select
    case when not has_schema_privilege(namespace.oid, 'usage') then 'usage on schema ' || namespace.nspname
        else wanted.word || ' on table ' || class.relname end
from unnest($1::text[], $2::text[]) with ordinality as wanted (relation, word, position)
join pg_namespace as namespace on namespace.nspname = $3::text
join pg_class as class on class.relnamespace = namespace.oid and class.relname = wanted.relation
where not has_schema_privilege(namespace.oid, 'usage')
    or not case
        when wanted.word = 'delete' then has_table_privilege(class.oid, wanted.word)
        else has_table_privilege(class.oid, wanted.word) or has_any_column_privilege(class.oid, wanted.word)
    end
union all
select 'usage on sequence ' || sequence.relname
from pg_namespace as namespace
join pg_class as class on class.relnamespace = namespace.oid and class.relname = any ($1::text[])
join pg_attribute as attribute
    on attribute.attrelid = class.oid and attribute.attname = 'id'
-- The sequence of a serial column; that of an identity column needs no right.
join pg_depend as belongs
    on belongs.refobjid = class.oid and belongs.refobjsubid = attribute.attnum and belongs.deptype = 'a'
join pg_class as sequence on sequence.oid = belongs.objid
where namespace.nspname = $3::text
    -- Asked of anything but a sequence, the function raises an error.
    and case when sequence.relkind = 'S'
        then not has_sequence_privilege(sequence.oid, 'usage') and not has_sequence_privilege(sequence.oid, 'update')
        else false
    end
