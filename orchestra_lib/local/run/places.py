"""Where things of the local Cloud Run lie, and at which port its addresses listen.

``directory`` is the control plane's own, here and in the other modules.
"""

from __future__ import annotations

from pathlib import Path

PORT = 8790
"""Of every service, tag and gateway: each has a loopback address of its own."""


def home(directory: Path) -> Path:
    """Everything of the local Cloud Run."""
    return directory / "run"


def images(directory: Path) -> Path:
    """The packed images, each in a folder that is called by its digest."""
    return home(directory) / "images"


def log(directory: Path, service: str, revision: str) -> Path:
    """What the instances of a revision wrote; ``service`` is the service's full name."""
    return home(directory) / "logs" / f"{'.'.join(service.split('/')[1::2])}.{revision}.log"


def url(address: str) -> str:
    """Where a service, a tag or a gateway of that address answers."""
    return f"http://{address}:{PORT}"
