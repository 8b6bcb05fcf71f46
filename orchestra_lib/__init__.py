"""Executable runbooks that move AI Orchestra to Google Cloud: the thin library that the notebooks call."""

__version__ = "0.1.0"
