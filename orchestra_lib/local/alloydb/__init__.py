"""The data plane of the local AlloyDB: what the official connector talks to, and the servers behind it.

``authority`` signs certificates, ``admin_door`` is the gRPC door of the connector's admin client, ``front`` the mTLS
listener of one instance, ``exchange`` and ``startup`` the two protocols spoken there, ``backend`` the PostgreSQL server
of one instance with the roles of ``roles``, ``doorkeeper`` decides who may come in. ``plane`` is the process that holds them together, ``program`` starts and
stops it. What exists, and who may come in, is asked of the control plane each time (``control_client``).
"""
