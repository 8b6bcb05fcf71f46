"""The memory API that goes to Cloud Run: a program of its own, ``python -m orchestra_lib.service``."""
