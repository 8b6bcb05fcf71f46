"""The local target's control plane: one REST server driven by Google's own discovery documents.

The way of a request: ``server`` (the socket) hands it to ``front`` (which service, which method, what does the body
hold), which finds the method in ``catalog`` and lets ``checks`` judge the body. ``control`` admits the caller
(``admission``, ``tokens``, ``projects``), ends the ``operations`` that are due, and runs the method in one transaction
of the ``store``: one of ``standard``, ``policies`` or ``operation_methods``, or the service's own.

What a service does beyond that stands in ``services/<service>.py`` as a ``Service`` with a ``Kind`` row for each kind
of resource that differs from the rest (see ``kinds``). A collection without a row works by the document alone; a method
that nobody wrote answers 501 and its name. Tests make things go wrong through ``injected``.
"""
