select
    current_user::text as user_name,
    current_database()::text as database_name,
    has_database_privilege(current_database(), 'create') as may_create_schemas,
    rolsuper or rolcreaterole as may_create_roles
from pg_roles
where rolname = current_user
