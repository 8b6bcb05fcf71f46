"""The memory API's image in runbook 05: what it is called, whether it is there, and its build."""

from __future__ import annotations

from orchestra_lib.blueprint.api import IMAGE_BUILDER, PACKAGE
from orchestra_lib.blueprint.specification import specification
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.evidence import Evidence, yes_or_no
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Change, Verb
from orchestra_lib.rollout import image
from orchestra_lib.settings import Settings, root


class ApiImage:
    """The image of this checkout's source. Raises ParameterError for what the settings lack."""

    def __init__(self, settings: Settings, work: CloudWork) -> None:
        spec = specification(settings)
        self._work, self._source = work, image.source_of(root())
        self._repository = image.Repository(spec.project.id, spec.regions.primary, spec.registry.repository)
        self._account = spec.email_of(IMAGE_BUILDER)

    @property
    def name(self) -> str:
        """How a container names it."""
        return self._repository.image(PACKAGE, self._source.tag)

    @property
    def short_name(self) -> str:
        """Package and tag."""
        return f"{PACKAGE}:{self._source.tag}"

    def change(self) -> Change:
        """The planned change."""
        verb = Verb.KEEP if self._is_built() else Verb.CREATE
        return Change(verb, "image", self.short_name, "built by Cloud Build from this source")

    def build(self) -> Evidence:
        """Have it built unless its tag is there. Raises CloudRefused when the build fails."""
        how = "found" if self._is_built() else "built now"
        image.build(self._work.client, self._repository, PACKAGE, self._source, self._account)
        return yes_or_no(
            "the image of this source is in the registry",
            self._work.place.source,
            self._is_built(),
            note=f"{self.short_name}, {how}",
        )

    def _is_built(self) -> bool:
        try:
            return image.is_built(self._work.client, self._repository, PACKAGE, self._source.tag)
        except CloudRefused as error:
            if error.is_nothing_yet:
                return False
            raise
