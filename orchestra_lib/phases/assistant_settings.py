"""What the assistant runs with, as it stands on Google Cloud: read, planned, and guarded until it is written."""

from __future__ import annotations

from orchestra_lib.blueprint.assistant import KIND, Earned, settings_in_force
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.errors import GateFailed
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Change, Verb
from orchestra_lib.settings.assistant import Assistant


class SettingsInForce:
    """The one resource that holds them. What it held when the plan was shown is remembered."""

    def __init__(self, work: CloudWork, wanted: Assistant) -> None:
        self._work, self._wanted = work, wanted
        self._planned: dict[str, str] | None = None

    def live(self) -> dict[str, str] | None:
        """What is in force now; None before there is anything."""
        path = f"projects/{self._work.place.project}/secrets/{self._wanted.settings_resource}"
        try:
            live = self._work.client.call("secretmanager.v1", "secretmanager.projects.secrets.get", path)
        except CloudRefused as error:
            if error.is_nothing_yet:
                return None
            raise
        return dict(live.get("annotations", {}))

    def wanted(self, earned: Earned | None) -> dict[str, str]:
        """What is to be in force; without what is earned as far as it is known."""
        return dict(settings_in_force(self._wanted, earned))

    def change(self) -> Change:
        """The planned change: the budget is not in it where the measurement has to choose it."""
        self._planned = self.live()
        tokens = self._wanted.context.tokens
        chosen = "the budget of the context is what the measurement chooses"
        return Change(
            Verb.CREATE if self._planned is None else Verb.UPDATE,
            KIND,
            self._wanted.settings_resource,
            chosen if tokens is None else f"{tokens:,} tokens of context",
            self._planned,
            self.wanted(None),
        )

    def refuse_if_changed(self, earned: Earned) -> None:
        """Raise GateFailed when somebody else wrote since the plan was shown."""
        if self.live() not in (self._planned, self.wanted(earned)):
            raise GateFailed(
                f"{self._wanted.settings_resource} has changed since the plan was shown: somebody else wrote to it; "
                "run the notebook again"
            )
