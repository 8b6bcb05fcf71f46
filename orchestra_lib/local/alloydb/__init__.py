"""The data plane of the local AlloyDB: what the official connector talks to, and the servers behind it.

``authority`` signs certificates, ``admin_door`` is the gRPC door of the connector's admin client, ``front`` the mTLS
listener of one instance, where ``exchange`` and ``startup`` are spoken and ``doorkeeper`` says who may come in;
``local_door`` is the way for programs of this machine. ``plane`` holds them together in one process, ``program``
starts and stops it, ``presence`` says whether it runs.

What exists is asked of the control plane each time (``control_client``), ``wanted`` is what follows for each server,
``jobs`` what there is to do about it, ``leftovers`` what to remove. ``backend`` is the PostgreSQL server of one
instance, started with ``server_settings`` and the users of ``roles``; ``servers`` gives each one its role, with
``handover`` for a change of places, ``histories`` for who can follow whom, ``slots`` for what followers need.
``base_backups`` copies a server, ``backups`` and ``chains`` are the copies and the archived log on disk, ``recovery``
brings them back. ``control_rows`` is what the control plane does for the data plane.
"""
