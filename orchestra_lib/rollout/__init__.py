"""A new revision of a service takes over step by step, held against the old one at each, and goes back at once."""
