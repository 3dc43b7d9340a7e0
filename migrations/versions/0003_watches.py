"""Tables as `notifier.toml` spells them, grants on record, and functions known as ours."""

from __future__ import annotations

from notifier.database import sql
from notifier.database.functions import MANAGED, RELEASED
from notifier.database.schema import run

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        """
        ALTER TABLE notifier.configuration DROP COLUMN membership;
        ALTER TABLE notifier.watches ADD COLUMN table_name text;
        UPDATE notifier.watches SET table_name = relation;
        ALTER TABLE notifier.watches ALTER COLUMN table_name SET NOT NULL;
        COMMENT ON COLUMN notifier.watches.table_name IS 'the table as notifier.toml spells it';
        """
    )
    run(sql.tables("grants"))
    # Roles that may relay may serve. Rights on two columns alone can only have been granted for that.
    run(
        """
        INSERT INTO notifier.grants (role, privilege)
        SELECT DISTINCT r.rolname, 'serve'
        FROM pg_class AS c, aclexplode(c.relacl) AS granted JOIN pg_roles AS r ON r.oid = granted.grantee
        WHERE c.oid = 'notifier.change_ids'::regclass AND granted.grantee <> c.relowner
          AND granted.privilege_type = 'UPDATE'
          -- which was never granted for that: such a role has rights by the database's default privileges
          AND NOT EXISTS (
              SELECT FROM pg_class AS other, aclexplode(other.relacl) AS held
              WHERE other.oid = 'notifier.changes_0'::regclass AND held.grantee = granted.grantee
                AND held.privilege_type = 'INSERT'
          );

        INSERT INTO notifier.grants (role, privilege)
        SELECT DISTINCT g.role, format('SELECT (%I) ON %s', a.attname, w.relation)
        FROM notifier.grants AS g
        JOIN pg_roles AS r ON r.rolname = g.role
        CROSS JOIN notifier.watches AS w
        JOIN pg_attribute AS a ON a.attrelid = to_regclass(w.relation) AND a.attname IN (w.company, w.member)
        CROSS JOIN aclexplode(a.attacl) AS granted
        WHERE w.member IS NOT NULL AND granted.grantee = r.oid AND granted.privilege_type = 'SELECT';
        """
    )
    run(
        f"""
        DO $$
        DECLARE
            function regprocedure;
        BEGIN
            FOR function IN
                SELECT oid FROM pg_proc
                WHERE pronamespace = 'notifier'::regnamespace AND proname = ANY ('{{{",".join(RELEASED)}}}')
            LOOP
                EXECUTE format('COMMENT ON FUNCTION %s IS %L', function, '{MANAGED}');
            END LOOP;
            -- The first release made the schema; a later one has a comment on it by now, if it did.
            IF to_regproc('notifier.without') IS NOT NULL THEN
                COMMENT ON SCHEMA notifier IS '{MANAGED}';
            END IF;
        END
        $$;
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA notifier FROM PUBLIC;
        """
    )


def downgrade() -> None:
    run(
        """
        DO $$
        DECLARE
            serving name;
        BEGIN
            -- later versions grant it no more; by it `upgrade` knows the roles
            FOR serving IN SELECT r.rolname FROM notifier.grants AS g JOIN pg_roles AS r ON r.rolname = g.role
                           WHERE g.privilege = 'serve' LOOP
                EXECUTE format('GRANT UPDATE ON SEQUENCE notifier.change_ids TO %I', serving);
            END LOOP;
        END
        $$;
        DROP TABLE notifier.grants;
        ALTER TABLE notifier.watches DROP COLUMN table_name;
        ALTER TABLE notifier.configuration ADD COLUMN membership text;
        """
    )
