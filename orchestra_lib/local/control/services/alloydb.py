"""AlloyDB for PostgreSQL: clusters, instances, backups, users. https://cloud.google.com/alloydb/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.alloydb import control_rows
from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import full, in_location
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="alloydb",
    every=Kind("", etag=False, optional=frozenset({"network"})),
    kinds=(
        Kind(
            "clusters",
            etag=False,
            optional=frozenset({"network"}),
            fill=control_rows.seal_initial_user,
            finish=control_rows.take_initial_user,
        ),
        Kind("instances", etag=False, finish=control_rows.give_address),
        Kind(
            "users",
            etag=False,
            defaults={"userType": control_rows.BUILT_IN},
            check=control_rows.check_user,
            fill=control_rows.seal_password,
            finish=control_rows.take_password,
            before_delete=control_rows.forget_password,
            built_in=control_rows.first_user,
        ),
    ),
    methods={
        "clusters.generateClientCertificate": control_rows.generate_client_certificate,
        "instances.getConnectionInfo": control_rows.connection_info,
    },
    operations=Style(in_location, full(cancellation=True), says_not_done=True),
)
