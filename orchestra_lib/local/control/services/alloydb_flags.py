"""The database flags that AlloyDB supports: their types, limits, versions, and which of them restart an instance.

One flag a line: its name, then ``on|off`` or another choice, ``low..high``, ``float``, ``text`` or ``list`` (several
words, separated by commas), then ``restart`` and ``since=<version>`` where they apply; ``~`` stands for a space.
Names, restarts and versions: https://cloud.google.com/alloydb/docs/reference/database-flags and
https://cloud.google.com/alloydb/docs/reference/columnar-engine-flags. Types and limits of PostgreSQL's own parameters:
``pg_settings`` of PostgreSQL 16. Flags of the connection pool:
https://cloud.google.com/alloydb/docs/configure-managed-connection-pooling
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.pages import page

VERSIONS = range(14, 19)
"""The major versions of PostgreSQL that a new cluster can have."""
DATABASE, CONNECTION_POOL = "DATABASE", "CONNECTION_POOL"

_DATABASE_FLAGS = """
alloydb.ai_nl_enabled on|off
alloydb.enable_auto_explain on|off restart
alloydb.enable_named_hints on|off
alloydb.enable_pg_bigm on|off restart
alloydb.enable_pg_cron on|off restart
alloydb.enable_pg_hint_plan on|off restart
alloydb.enable_pg_squeeze on|off
alloydb.enable_pg_wait_sampling on|off restart
alloydb.enable_pgaudit on|off restart
alloydb.enable_pglogical on|off restart
alloydb.iam_authentication on|off restart
alloydb.log_throttling_window 0..2147483647
alloydb.logical_decoding on|off restart
alloydb.pg_shadow_select_role text
alloydb.promote_cancel_to_terminate on|off
allow_alter_system on|off since=17
auto_explain.log_analyze on|off
auto_explain.log_buffers on|off
auto_explain.log_format text|xml|json|yaml
auto_explain.log_level debug5|debug4|debug3|debug2|debug1|info|notice|warning|log
auto_explain.log_min_duration -1..2147483647
auto_explain.log_nested_statements on|off
auto_explain.log_settings on|off
auto_explain.log_timing on|off
auto_explain.log_triggers on|off
auto_explain.log_verbose on|off
auto_explain.log_wal on|off
auto_explain.sample_rate float
autovacuum on|off
autovacuum_analyze_scale_factor float
autovacuum_analyze_threshold 0..2147483647
autovacuum_freeze_max_age 100000..2000000000 restart
autovacuum_max_workers 1..262143 restart
autovacuum_multixact_freeze_max_age 10000..2000000000 restart
autovacuum_naptime 1..2147483
autovacuum_vacuum_cost_delay float
autovacuum_vacuum_cost_limit -1..10000
autovacuum_vacuum_max_threshold -1..2147483647 since=18
autovacuum_vacuum_scale_factor float
autovacuum_vacuum_threshold 0..2147483647
autovacuum_work_mem -1..2147483647
autovacuum_worker_slots 1..262143 restart since=18
checkpoint_completion_target float
checkpoint_timeout 30..86400
checkpoint_warning 0..2147483647
commit_delay 0..100000
commit_siblings 0..1000
commit_timestamp_buffers 0..131072 restart since=17
constraint_exclusion partition|on|off
cpu_index_tuple_cost float
cpu_operator_cost float
cpu_tuple_cost float
createrole_self_grant list since=16
cron.database_name text restart
cron.log_min_messages debug5|debug4|debug3|debug2|debug1|info|notice|warning|error|log|fatal|panic
cron.log_run on|off restart
cron.log_statement on|off restart
cron.max_running_jobs 0..2147483647 restart
cursor_tuple_fraction float
deadlock_timeout 1..2147483647
debug_io_direct list since=16
debug_logical_replication_streaming buffered|immediate since=16
default_statistics_target 1..10000
default_tablespace text
default_toast_compression pglz
default_transaction_deferrable on|off
default_transaction_isolation serializable|repeatable~read|read~committed|read~uncommitted
effective_cache_size 1..2147483647
enable_bitmapscan on|off
enable_distinct_reordering on|off since=18
enable_google_adaptive_autovacuum on|off
enable_group_by_reordering on|off since=17
enable_hashagg on|off
enable_hashjoin on|off
enable_indexonlyscan on|off
enable_indexscan on|off
enable_material on|off
enable_mergejoin on|off
enable_nestloop on|off
enable_partitionwise_aggregate on|off
enable_partitionwise_join on|off
enable_presorted_aggregate on|off since=16
enable_self_join_elimination on|off since=18
enable_seqscan on|off
enable_sort on|off
enable_tidscan on|off
event_triggers on|off since=17
file_copy_method copy|clone since=18
from_collapse_limit 1..2147483647
geqo on|off
geqo_effort 1..10
geqo_generations 0..2147483647
geqo_pool_size 0..2147483647
geqo_seed float
geqo_selection_bias float
geqo_threshold 2..2147483647
gin_fuzzy_search_limit 0..2147483647
gin_pending_list_limit 64..2147483647
google_columnar_engine.auto_columnarization_schedule text
google_columnar_engine.enable_auto_columnarization on|off
google_columnar_engine.enable_columnar_scan on|off
google_columnar_engine.enable_index_caching on|off
google_columnar_engine.enable_vectorized_join on|off
google_columnar_engine.enable_virtual_columns_scan on|off
google_columnar_engine.enabled on|off restart
google_columnar_engine.memory_size_in_mb 128..2147483647 restart
google_columnar_engine.refresh_threshold_percentage 0..2147483647
google_columnar_engine.refresh_threshold_scan_count 0..2147483647
google_columnar_engine.relations list
google_columnar_engine.vectorized_join_threads 1..2147483647
google_db_advisor.auto_advisor_max_time_in_seconds 0..2147483647
google_db_advisor.auto_advisor_schedule text
google_db_advisor.enable_auto_advisor on|off
google_db_advisor.enabled on|off restart
google_db_advisor.max_index_width 1..2147483647
google_db_advisor.max_num_indexable_columns 0..2147483647
google_db_advisor.max_statement_length 0..2147483647
google_db_advisor.max_storage_size_in_mb 0..2147483647
google_db_advisor.recommend_indexes_on_partitions on|off
google_db_advisor.recommendation_max_time_in_seconds 0..2147483647
google_db_advisor.top_k_slowest_statements 0..2147483647
google_job_scheduler.maintenance_cpu_percentage 0..100
google_job_scheduler.max_parallel_workers_per_job 0..2147483647
google_ml_integration.enable_faster_embedding_generation on|off
google_ml_integration.enable_forecasting on|off
google_ml_integration.enable_model_support on|off
google_plan_management.enable_steer_plans on|off
google_plan_management.enable_track_plans on|off
google_plan_management.enabled on|off restart
google_storage.log_replay_throttle_read_transactions on|off
gss_accept_delegation on|off since=16
hot_standby_feedback on|off
icu_validation_level disabled|debug5|debug4|debug3|debug2|debug1|log|notice|warning|error since=16
idle_in_transaction_session_timeout 0..2147483647
idle_replication_slot_timeout 0..2147483647 since=18
io_max_combine_limit 1..128 restart since=18
io_max_concurrency -1..1024 restart since=18
io_method sync| restart since=18
join_collapse_limit 1..2147483647
lock_timeout 0..2147483647
log_autovacuum_min_duration -1..2147483647
log_checkpoints on|off
log_connections on|off
log_disconnections on|off
log_duration on|off
log_error_verbosity terse|default|verbose
log_executor_stats on|off
log_hostname on|off
log_line_prefix text
log_lock_waits on|off
log_min_duration_statement -1..2147483647
log_min_error_statement debug5|debug4|debug3|debug2|debug1|info|notice|warning|error|log|fatal|panic
log_min_messages debug5|debug4|debug3|debug2|debug1|info|notice|warning|error|log|fatal|panic
log_parser_stats on|off
log_planner_stats on|off
log_replication_commands on|off
log_statement none|ddl|mod|all
log_statement_stats on|off
log_temp_files -1..2147483647
log_timezone text
maintenance_work_mem 1024..2147483647
max_active_replication_origins 0..262143 restart since=18
max_connections 1..262143 restart
max_locks_per_transaction 10..2147483647 restart
max_logical_replication_workers 0..262143 restart
max_notify_queue_pages 64..2147483647 restart since=17
max_parallel_apply_workers_per_subscription 0..1024 since=16
max_parallel_maintenance_workers 0..1024
max_parallel_workers 0..1024
max_parallel_workers_per_gather 0..1024
max_pred_locks_per_page 0..2147483647 restart
max_pred_locks_per_relation -2147483648..2147483647 restart
max_pred_locks_per_transaction 10..2147483647 restart
max_prepared_transactions 0..262143 restart
max_replication_slots 0..262143 restart
max_standby_archive_delay -1..2147483647
max_standby_streaming_delay -1..2147483647
max_sync_workers_per_subscription 0..262143
max_wal_senders 0..262143 restart
max_wal_size 2..2147483647
max_worker_processes 0..262143 restart
md5_password_warnings on|off since=18
min_wal_size 2..2147483647
multixact_member_buffers 16..131072 restart since=17
multixact_offset_buffers 16..131072 restart since=17
notify_buffers 16..131072 restart since=17
parameterized_views.enabled on|off restart
parameterized_views.json_results_max_rows 0..2147483647
parameterized_views.json_results_max_size 0..2147483647
parameterized_views.max_parallel_workers_per_gather -1..2147483647
parameterized_views.statement_timeout 0..2147483647
parameterized_views.temp_file_limit -1..2147483647
parameterized_views.work_mem 0..2147483647
password.enforce_complexity on|off
password.enforce_expiration on|off
password.enforce_password_does_not_contain_username on|off
password.expiration_in_days 1..2147483647
password.max_lowercase_letters 0..1000
password.max_numerical_chars 0..1000
password.max_pass_length 0..1000
password.max_special_chars 0..1000
password.max_uppercase_letters 0..1000
password.min_lowercase_letters 0..1000
password.min_numerical_chars 0..1000
password.min_pass_length 0..1000
password.min_special_chars 0..1000
password.min_uppercase_letters 0..1000
password.notify_expiration_in_days 1..2147483647
password_encryption md5|scram-sha-256
perfsnap.interval 0..2147483647
perfsnap.retention 0..2147483647
pg_bigm.enable_recheck on|off
pg_bigm.gin_key_limit 0..2147483647
pg_bigm.similarity_limit float
pg_hint_plan.debug_print off|on|detailed|verbose
pg_hint_plan.enable_hint on|off
pg_hint_plan.enable_hint_table on|off
pg_hint_plan.message_level debug5|debug4|debug3|debug2|debug1|info|notice|warning|error|log
pg_hint_plan.parse_messages debug5|debug4|debug3|debug2|debug1|info|notice|warning|error|log
pg_stat_statements.max 100..2147483647 restart
pg_stat_statements.save on|off
pg_stat_statements.track none|top|all
pg_stat_statements.track_utility on|off
pgaudit.log list
pgaudit.log_catalog on|off
pgaudit.log_client on|off
pgaudit.log_level debug5|debug4|debug3|debug2|debug1|info|notice|warning|log
pgaudit.log_parameter on|off
pgaudit.log_relation on|off
pgaudit.log_statement_once on|off
pgaudit.role text
pglogical.batch_inserts on|off restart
pglogical.conflict_log_level debug5|debug4|debug3|debug2|debug1|info|notice|warning|error|log
pglogical.conflict_resolution error|apply_remote|keep_local|last_update_wins|first_update_wins
pglogical.extra_connection_options text
pglogical.synchronous_commit on|off restart
pglogical.use_spi on|off restart
random_page_cost float
reserved_connections 0..262143 restart since=16
scann.enable_preview_features on|off restart
scann.maintenance_background_naptime_s 0..2147483647 restart
scram_iterations 1..2147483647 since=16
send_abort_for_crash on|off since=16
send_abort_for_kill on|off since=16
serializable_buffers 16..131072 restart since=17
shared_buffers 16..1073741823 restart
squeeze.max_xlock_time 1..2147483647
squeeze.worker_autostart text
squeeze.worker_role text
squeeze.workers_per_database 1..2147483647
ssl_groups text since=18
ssl_max_protocol_version |TLSv1|TLSv1.1|TLSv1.2|TLSv1.3
ssl_min_protocol_version TLSv1|TLSv1.1|TLSv1.2|TLSv1.3
ssl_tls13_ciphers text since=18
standard_conforming_strings on|off
statement_timeout 0..2147483647
subtransaction_buffers 0..131072 restart since=17
synchronize_seqscans on|off
tcp_keepalives_count 0..2147483647
tcp_keepalives_idle 0..2147483647
tcp_keepalives_interval 0..2147483647
temp_buffers 100..1073741823
temp_file_limit -1..2147483647
timezone text
trace_connection_negotiation on|off restart since=17
trace_notify on|off
trace_recovery_messages debug5|debug4|debug3|debug2|debug1|log|notice|warning|error
trace_sort on|off
track_activities on|off
track_activity_query_size 100..1048576 restart
track_commit_timestamp on|off restart
track_counts on|off
track_functions none|pl|all
track_io_timing on|off
transaction_buffers 0..131072 restart since=17
transaction_timeout 0..2147483647 since=17
vacuum_buffer_usage_limit 0..16777216 since=16
vacuum_cost_delay float
vacuum_cost_limit 1..10000
vacuum_freeze_min_age 0..1000000000
vacuum_freeze_table_age 0..2000000000
vacuum_max_eager_freeze_failure_rate float since=18
vacuum_multixact_freeze_min_age 0..1000000000
vacuum_multixact_freeze_table_age 0..2000000000
vacuum_truncate on|off since=18
wal_buffers -1..262143 restart
wal_compression pglz|on|off
wal_receiver_timeout 0..2147483647
wal_sender_timeout 0..2147483647
work_mem 64..2147483647
"""

_POOL_FLAGS = """
client_connection_idle_timeout 0..2147483647
ignore_startup_parameters list
max_client_connections 0..262142
max_pool_size 0..262142
max_prepared_statements 0..2147483647
min_pool_size 0..262142
pool_mode transaction|session
query_wait_timeout 0..2147483647
server_connection_idle_timeout 0..2147483647
server_lifetime 0..2147483647
stats_users list
"""


@dataclass(frozen=True)
class Flag:
    """One flag. ``choice`` and ``limits`` are None where the value is free."""

    name: str
    scope: str
    kind: str
    """``STRING``, ``INTEGER`` or ``FLOAT``."""
    choice: tuple[str, ...] | None
    limits: tuple[int, int] | None
    takes_several: bool
    restarts: bool
    since: int

    def wrong(self, value: str) -> str:
        """What is wrong with a value; nothing if it can be set."""
        if self.choice and value.lower() not in self.choice:
            return f"it has to be one of {', '.join(self.choice)}"
        if self.kind == "STRING":
            return ""
        try:
            number = int(value) if self.kind == "INTEGER" else float(value)
        except ValueError:
            return f"it has to be a number of type {self.kind}"
        if self.limits and not self.limits[0] <= number <= self.limits[1]:
            return f"it has to be between {self.limits[0]} and {self.limits[1]}"
        return ""

    def resource(self, location: str) -> Body:
        """The flag as the API shows it, for the path of a location."""
        body: Body = {
            "name": f"{location}/flags/{self.name}",
            "flagName": self.name,
            "valueType": self.kind,
            "acceptsMultipleValues": self.takes_several,
            "supportedDbVersions": [f"POSTGRES_{version}" for version in VERSIONS if version >= self.since],
            "requiresDbRestart": self.restarts,
            "scope": self.scope,
        }
        if self.choice:
            body["stringRestrictions"] = {"allowedValues": list(self.choice), "caseAgnostic": True}
        if self.limits:
            body["integerRestrictions"] = {"minValue": str(self.limits[0]), "maxValue": str(self.limits[1])}
        return body


@cache
def flags() -> Mapping[str, Flag]:
    """The database's flags by name."""
    return _table(_DATABASE_FLAGS, DATABASE)


@cache
def pool_flags() -> Mapping[str, Flag]:
    """The connection pool's flags by name."""
    return _table(_POOL_FLAGS, CONNECTION_POOL)


def check(given: Mapping[str, str], version: str) -> None:
    """Raise Fault (400) for a database flag that a cluster of a version (``POSTGRES_16``) cannot have."""
    major = int(version.removeprefix("POSTGRES_"))
    for name, value in given.items():
        flag = flags().get(name)
        if flag is None:
            raise bad_field("instance.database_flags", f"Database flag '{name}' is not supported.")
        if major < flag.since:
            words = f"Database flag '{name}' needs PostgreSQL {flag.since}; the cluster has {version}."
            raise bad_field("instance.database_flags", words)
        if wrong := flag.wrong(value):
            raise bad_field("instance.database_flags", f"Invalid value '{value}' of database flag '{name}': {wrong}.")


def list_supported(call: Call) -> Body:
    """``supportedDatabaseFlags.list``: those of the database, or of the connection pool where asked for."""
    chosen = pool_flags() if call.query.get("scope") == CONNECTION_POOL else flags()
    location = call.path.rpartition("/")[0]
    shown, token = page([flag.resource(location) for flag in chosen.values()], call.query)
    answer: Body = {"supportedDatabaseFlags": shown}
    if token:
        answer["nextPageToken"] = token
    return answer


def _table(lines: str, scope: str) -> Mapping[str, Flag]:
    found = [_flag(line, scope) for line in lines.strip().splitlines()]
    return {flag.name: flag for flag in found}


def _flag(line: str, scope: str) -> Flag:
    name, values, *rest = line.split()
    low, is_range, high = values.partition("..")
    since = next((int(word.removeprefix("since=")) for word in rest if word.startswith("since=")), VERSIONS[0])
    return Flag(
        name=name,
        scope=scope,
        kind="INTEGER" if is_range else "FLOAT" if values == "float" else "STRING",
        choice=tuple(filter(None, values.replace("~", " ").split("|"))) if "|" in values else None,
        limits=(int(low), int(high)) if is_range else None,
        takes_several=values == "list",
        restarts="restart" in rest,
        since=since,
    )
