"""The local target's control plane: one REST server driven by Google's own discovery documents.

``catalog`` says which calls exist and what their bodies may hold, ``checks`` judges a request by that, ``store`` keeps
what was created, ``standard`` does the methods that all services share, ``operations`` the long-running ones, and
``services/`` holds what each service does beyond that, as far as possible as tables. ``server`` is the socket.
"""
