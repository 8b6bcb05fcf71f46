"""What all phases together want, as far as they have a blueprint: the plan that the preflight looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.api import PACKAGE, api, revision_template
from orchestra_lib.blueprint.assistant import assistant
from orchestra_lib.blueprint.memory import memory
from orchestra_lib.blueprint.specification import specification
from orchestra_lib.blueprint.workstations import workstations
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.paths import journal_path
from orchestra_lib.service.interface import interface_document
from orchestra_lib.settings import Settings


def _api(settings: Settings) -> Sequence[Resource]:
    # The image is known once it is built, and so is where the store is: nobody is asked whether it could be made.
    spec = specification(settings)
    first = {**revision_template(settings, PACKAGE, {}), "revision": f"{spec.api.service}-first"}
    return api(settings, first, interface_document(), spec.api.audience).resources


BLUEPRINTS: Sequence[tuple[str, Callable[[Settings], Sequence[Resource]]]] = (
    ("01", infrastructure),
    ("02", lambda settings: workstations(settings).resources),
    ("03", lambda settings: memory(settings).resources),
    ("04", lambda settings: assistant(settings).resources),
    ("05", _api),
)
"""Phase -> what it wants; of phase 5 without its probe, which names who runs it. A phase without a blueprint is judged
by the rules alone."""


def wanted(settings: Settings) -> tuple[Resource, ...]:
    """The resources of every phase, each once. Raises ParameterError for what only the owner can say."""
    found: dict[str, Resource] = {}
    for _, blueprint in BLUEPRINTS:
        for one in blueprint(settings):
            found.setdefault(one.key, one)
    return tuple(found.values())


def made_by_us(settings: Settings) -> frozenset[str]:
    """The keys of the resources that the journals of the phases know as applied."""
    environment = settings.environment
    local = environment.kind == "local"
    paths = [journal_path(environment.name, phase, local=local) for phase, _ in BLUEPRINTS]
    return frozenset(key for path in paths if path.exists() for key in Journal(path).applied())
