"""The data plane of the local AlloyDB: what the official connector talks to, and the servers behind it.

``authority`` signs certificates, ``admin_door`` is the gRPC door of the connector's admin client, ``front`` the mTLS
listener of one instance, where ``exchange`` and ``startup`` are spoken and ``doorkeeper`` says who may come in;
``backend`` is the PostgreSQL server of one instance, with the users of ``roles``. ``plane`` holds them together in one
process, ``program`` starts and stops it. What exists is asked of the control plane each time (``control_client``);
``control_rows`` is what the control plane does for it.
"""
