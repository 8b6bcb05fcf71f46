"""What phase 1 has to know, complete: the sections of the settings, and the names that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.resource import Ref, Resource
from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import Settings
from orchestra_lib.settings.cloud import Api, Cost, Organization, Project, Regions, Services
from orchestra_lib.settings.delivery import GitHub, Registry, Secrets
from orchestra_lib.settings.memory import Memory
from orchestra_lib.settings.model import CLOUD_SECTIONS, Targets
from orchestra_lib.settings.network import Network
from orchestra_lib.settings.observability import Alerting, Logging

_BILLING_HOST = "cloudbilling.googleapis.com"


@dataclass(frozen=True)
class Specification:
    """The settings of phase 1 with nothing left open."""

    organization: Organization
    project: Project
    billing_account: str
    labels: Mapping[str, str]
    regions: Regions
    services: Services
    network: Network
    secrets: Secrets
    registry: Registry
    github: GitHub
    github_owner_id: str
    github_repository_id: str
    logging: Logging
    email: str
    alerting: Alerting
    api: Api
    cost: Cost
    memory: Memory
    targets: Targets

    @property
    def project_path(self) -> str:
        """``projects/<id>``."""
        return f"projects/{self.project.id}"

    @property
    def project_number(self) -> Ref:
        """The project's number, which exists once the project does."""
        return Ref(self.project_resource.key, "projectNumber")

    @property
    def project_resource(self) -> Resource:
        """The project under its organisation: made there, or adopted if it is there already."""
        parent = f"organizations/{self.organization.id}"
        return Resource("project", parent, self.project.id, {"parent": parent, "labels": dict(self.labels)})

    @property
    def billing_resource(self) -> Resource:
        """The link of the project to the account that pays."""
        account = {"billingAccountName": f"billingAccounts/{self.billing_account}"}
        return Resource("billing", self.project_path, "billingInfo", account, (self.service(_BILLING_HOST).key,))

    def service(self, host: str) -> Resource:
        """An API, enabled in the project. Only the one that links the account comes before there is one that pays."""
        first = self.project_resource if host == _BILLING_HOST else self.billing_resource
        return Resource("service", self.project_path, host, needs=(first.key,))

    def resource(
        self,
        kind: str,
        parent: str,
        id: str,
        body: Mapping[str, Any],
        needs: tuple[str, ...] = (),
    ) -> Resource:
        """A resource that needs its kind's API beside what it needs itself."""
        return Resource(kind, parent, id, body, (self.service(KINDS[kind].service).key, *needs))

    def location(self, region: str) -> str:
        """The parent of a regional resource: ``projects/<id>/locations/<region>``."""
        return f"{self.project_path}/locations/{region}"

    def email_of(self, account: str) -> str:
        """The e-mail address of one of the project's service accounts."""
        return f"{account}@{self.project.id}.iam.gserviceaccount.com"

    def account_path(self, account: str) -> str:
        """The path of one of the project's service accounts."""
        return f"{self.project_path}/serviceAccounts/{self.email_of(account)}"


def specification(settings: Settings) -> Specification:
    """The specification that the settings hold.

    Raises ParameterError, in one line, for sections that are missing and for every value that its owner has still to
    say, with the way to find it.
    """
    missing = [name for name in CLOUD_SECTIONS if getattr(settings, name) is None]
    if missing:
        raise ParameterError(
            f"environment {settings.environment.name} has no sections {', '.join(missing)}: it is to make nothing on "
            "Google Cloud; add them, or name the environment that it rehearses"
        )
    open_ = [f"{place} ({how})" for place, how in _open_values(settings)]
    if open_:
        raise ParameterError(
            f"environment {settings.environment.name} leaves open what only its owner can say: {'; '.join(open_)}"
        )
    sections = {name: getattr(settings, name) for name in Specification.__dataclass_fields__ if hasattr(settings, name)}
    return Specification(
        **sections,
        billing_account=settings.billing.account,  # type: ignore[union-attr, arg-type]
        email=settings.notifications.email,  # type: ignore[union-attr, arg-type]
        github_owner_id=settings.github.owner_id,  # type: ignore[union-attr, arg-type]
        github_repository_id=settings.github.repository_id,  # type: ignore[union-attr, arg-type]
    )


def _open_values(settings: Settings) -> list[tuple[str, str]]:
    """The settings that are None until somebody says them, and how each is found."""
    github, billing, notifications = settings.github, settings.billing, settings.notifications
    if github is None or billing is None or notifications is None:
        return []
    api = "https://api.github.com"
    table = (
        ("billing.account", billing.account, "gcloud billing accounts list"),
        ("notifications.email", notifications.email, "the address that alerts go to"),
        ("github.owner_id", github.owner_id, f"curl -s {api}/users/{github.owner} | jq .id"),
        (
            "github.repository_id",
            github.repository_id,
            f"curl -s {api}/repos/{github.owner}/{github.repository} | jq .id",
        ),
    )
    return [(place, how) for place, value, how in table if value is None]
