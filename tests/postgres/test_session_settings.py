"""Session settings: what ALTER ROLE, ALTER DATABASE or the server's configuration set hurts no connection."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest

from notifier.check.links import check
from notifier.database.connections import PINNED, RESET, SETTINGS, connect
from notifier.database.schema import migrate
from notifier.errors import DatabaseError, Misplaced
from notifier.settings import load
from tests.databases import Database
from tests.postgres.relays import Relayed, types
from tests.services import SECRET

PLANS = re.compile("^(enable_|debug_|geqo|force_parallel_mode$)")
"""As in sql/queries/reset_settings.sql."""

LEFT = {
    "costs of the planner, which fit the machine": """
        cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost effective_cache_size jit_above_cost
        jit_inline_above_cost jit_optimize_above_cost min_parallel_index_scan_size
        min_parallel_table_scan_size parallel_setup_cost parallel_tuple_cost random_page_cost
        recursive_worktable_factor seq_page_cost
    """,
    "memory and input/output, which fit the machine": """
        backend_flush_after commit_siblings effective_io_concurrency file_copy_method
        gin_pending_list_limit hash_mem_multiplier io_combine_limit logical_decoding_work_mem
        maintenance_io_concurrency maintenance_work_mem temp_buffers vacuum_buffer_usage_limit
        wal_skip_threshold work_mem
    """,
    "without effect, as jit and parallel workers are off": """
        jit_expressions jit_tuple_deforming max_parallel_maintenance_workers max_parallel_workers
        parallel_leader_participation
    """,
    "where the operator wants tables and temporary files": """
        default_tablespace default_toast_compression temp_tablespaces
    """,
    "only for statements that are not used: passwords, roles, VACUUM, text search, money, collations": """
        createrole_self_grant default_statistics_target default_text_search_config icu_validation_level
        lc_monetary lc_numeric lc_time md5_password_warnings password_encryption scram_iterations
        vacuum_cost_limit vacuum_cost_page_dirty vacuum_cost_page_hit vacuum_cost_page_miss
        vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age
        vacuum_max_eager_freeze_failure_rate vacuum_multixact_failsafe_age
        vacuum_multixact_freeze_min_age vacuum_multixact_freeze_table_age vacuum_truncate
    """,
    "only what the server logs": """
        escape_string_warning log_parameter_max_length_on_error trace_notify trace_sort
    """,
    "the order of rows without ORDER BY": "synchronize_seqscans",
    "set by the driver or by the caller: the relay's writer waits for the disk": """
        application_name client_encoding synchronous_commit
    """,
    "of one transaction": "transaction_deferrable transaction_isolation transaction_read_only",
    "libraries that the operator loads": "local_preload_libraries",
    "names of time zones, where all is sent in UTC": "timezone_abbreviations",
    "only of a standby's connection": "wal_sender_timeout",
    "gone from newer versions": "db_user_namespace vacuum_cleanup_index_scale_factor",
}
"""Settings that a session inherits, with the reason."""

HOSTILE = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "array_nulls": "off",
    "bytea_output": "escape",
    "check_function_bodies": "off",
    "client_min_messages": "debug5",
    "cursor_tuple_fraction": "1",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "enable_indexscan": "off",
    "enable_partition_pruning": "off",
    "enable_sort": "off",
    "extra_float_digits": "-10",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "500ms",
    "lock_timeout": "1ms",
    "plan_cache_mode": "force_custom_plan",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "statement_timeout": "400ms",
    "synchronous_commit": "off",
    "TimeZone": "Asia/Kathmandu",
    "transaction_timeout": "400ms",
    "transform_null_equals": "on",
    "xmloption": "document",
}


async def have(database: Database, *, search_path: bool = False) -> None:
    """Gives the database every hostile setting that its server knows."""
    known = {row[0] for row in await database.fetch("SELECT name FROM pg_settings")}
    for name, value in HOSTILE.items():
        if name in known and (search_path or name != "search_path"):
            await database.execute(f"ALTER DATABASE {database.name} SET {name} = '{value}'")


async def test_every_setting_of_the_server_is_decided_upon(database: Database) -> None:
    names = {
        row[0]
        for row in await database.fetch("SELECT name FROM pg_settings WHERE context = 'user'")
    }
    left = {name for group in LEFT.values() for name in group.split()}
    ours = {name.lower() for name in (*SETTINGS, *RESET, *PINNED)}
    assert not left & ours
    assert not {name for name in left if PLANS.match(name)}
    undecided = {name for name in names if name.lower() not in ours and not PLANS.match(name)}
    assert undecided <= left


async def test_settings_of_role_and_database_do_not_reach_a_connection(database: Database) -> None:
    await have(database, search_path=True)
    connection = await connect(database.dsn, "test")
    rows = await connection.fetch(
        "SELECT name, setting, boot_val FROM pg_settings WHERE context = 'user'"
    )
    connection.terminate()
    for name, setting, default in rows:
        if name == "search_path":
            assert setting == "pg_catalog, pg_temp"
        elif name in HOSTILE and name != "synchronous_commit":
            given = {each.lower(): value for each, value in (SETTINGS | PINNED).items()}
            assert setting == given.get(name.lower(), default), name


async def test_what_the_url_itself_sets_is_kept(database: Database) -> None:
    connection = await connect(f"{database.dsn}?options=-cenable_sort%3Doff", "test")
    assert await connection.fetchval("SELECT current_setting('enable_sort')") == "off"
    connection.terminate()


async def test_case_13_with_hostile_settings_all_is_migrated_captured_and_relayed(
    database: Database,
) -> None:
    app = await database.connect(app=True)
    company = await app.fetchval("INSERT INTO companies (name) VALUES ('Acme') RETURNING id::text")
    await have(database)
    await migrate(database.dsn)
    relay = Relayed(database)
    await relay.start()
    # In a session of before: its own settings are not the subject.
    await app.execute(
        "INSERT INTO events (company_id, title, starts_at, ends_at)"
        " SELECT $1::text::uuid, n::text, now(), now() FROM generate_series(1, 30000) AS n",
        company,
    )
    await app.execute("UPDATE companies SET name = 'Acme Ltd'")
    messages = await relay.messages_of(company)
    assert types(messages)[-2:] == ["Resync", "CompanyUpdated"]
    findings = await check(load({}, database_url=database.dsn, jwt_secret=SECRET))
    assert not [finding for finding in findings if finding.sound is False]
    await relay.stop()


async def test_a_table_access_method_of_the_database_is_not_ours(
    make_database: Callable[[], Awaitable[Database]],
) -> None:
    """As where every table is columnar unless it says otherwise."""
    database = await make_database()
    await database.execute("DROP SCHEMA notifier CASCADE")
    await database.execute("CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler")
    await database.execute(
        f"ALTER DATABASE {database.name} SET default_table_access_method = heap2"
    )
    await migrate(database.dsn)
    assert not await database.fetch(
        "SELECT c.relname FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam"
        " WHERE c.relnamespace = 'notifier'::regnamespace AND a.amname = 'heap2'"
    )


async def test_a_policy_that_hides_rows_is_an_error_and_not_an_empty_answer(
    database: Database,
) -> None:
    await database.execute(
        "ALTER TABLE events ENABLE ROW LEVEL SECURITY; GRANT SELECT ON events TO app"
    )
    connection = await connect(database.app_dsn, "test")
    with pytest.raises(Exception, match="row-level security"):
        await connection.fetch("SELECT FROM public.events")
    connection.terminate()


async def test_case_f8_a_transaction_pooler_that_swallows_the_settings_is_refused(
    database: Database,
) -> None:
    """As PgBouncer with `ignore_startup_parameters`: the session has none of what was sent with it."""
    sent = dict(SETTINGS)
    SETTINGS.clear()
    try:
        with pytest.raises(Misplaced, match="set NOTIFIER_LISTEN_DATABASE_URL"):
            await connect(database.dsn, "test")
    finally:
        SETTINGS.update(sent)
    assert issubclass(Misplaced, DatabaseError)
