"""Gemini Code Assist: what its editor and its repositories need, as texts to copy, and what only people can do.

A subscription is bought and seats are given in the console; no interface of the discovery documents does either.
https://cloud.google.com/gemini/docs/codeassist/set-up-gemini
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import Settings

USER_ROLES = ("roles/cloudaicompanion.user", "roles/serviceusage.serviceUsageConsumer")
"""What a developer needs on the project. https://cloud.google.com/gemini/docs/codeassist/set-up-gemini#grant-iam"""

INDEX_LOCATIONS = ("us-central1", "europe-west1", "asia-southeast1")
"""Where Developer Connect and an index of one's own code can lie.
https://developers.google.com/gemini-code-assist/docs/code-customization"""

ENTERPRISE = "enterprise"
"""The edition that can be adapted to one's own code."""

# The same syntax as .gitignore. https://cloud.google.com/gemini/docs/codeassist/create-aiexclude-file
_EXCLUDED = (
    (
        "Secrets, and files that hold them",
        (".env", ".env.*", "*.pem", "*.key", "*.p12", "*credentials*.json", ".pgpass"),
    ),
    ("State with addresses and identities in it", ("*.tfstate", "*.tfstate.*", ".terraform/", ".orchestra/", "runs/")),
    ("What is made and not written", (".venv/", "node_modules/", "dist/", "build/", "*.egg-info/")),
)


@dataclass(frozen=True)
class File:
    """A text and the path in a developer's checkout or home that it belongs to."""

    path: str
    text: str


def editor_files(settings: Settings) -> tuple[File, ...]:
    """What a developer's editor needs: its project, what it may not read, and the memory's server once there is one.

    Raises ParameterError for an environment without a project or an assistant.
    """
    project, _ = _names(settings)
    assert settings.assistant is not None  # noqa: S101 - _names has looked
    editor = {
        "geminicodeassist.project": project,
        "cloudcode.project": project,
        "cloudcode.beta.enableGeminiCodeAssist": True,
    }
    files = [File(".aiexclude", _aiexclude()), File(".vscode/settings.json", _json(editor))]
    server = settings.assistant.code_assist.memory_server
    if server is not None:
        files.append(File(".gemini/settings.json", _json({"mcpServers": {"orchestra-memory": {"httpUrl": server}}})))
    return tuple(files)


def index_commands(settings: Settings) -> tuple[str, ...]:
    """The commands that index our own repository for the enterprise edition; none for the standard one.

    Raises ParameterError as :func:`editor_files`, and where a region has no such index.
    """
    project, region = _names(settings)
    assert settings.assistant is not None  # noqa: S101 - _names has looked
    wanted, github = settings.assistant.code_assist, settings.github
    if _edition(settings) != ENTERPRISE:
        return ()
    if region not in INDEX_LOCATIONS:
        raise ParameterError(
            f"regions.primary is {region}, and an index of one's own code can lie in {', '.join(INDEX_LOCATIONS)}"
        )
    place = [f"--project={project}", f"--location={region}"]
    branch = github.branch if github else "main"
    link = wanted.repository_link or f"projects/{project}/locations/{region}/connections/NAME/gitRepositoryLinks/NAME"
    group = [
        "gcloud", "gemini", "code-repository-indexes", "repository-groups", "create", f"{wanted.index}-developers",
        f"--code-repository-index={wanted.index}", *place,
        f"--repositories=resource={link},branchPattern={branch}",
    ]  # fmt: skip
    commands = [["gcloud", "gemini", "code-repository-indexes", "create", wanted.index, *place], group]
    return tuple(shlex.join(command) for command in commands)


def open_points(settings: Settings) -> tuple[str, ...]:
    """What has to be done by a person, each a sentence."""
    assert settings.usage is not None  # noqa: S101 - read after _names by the callers
    edition, seats = _edition(settings), settings.usage.code_assist_seats
    points = [f"Buy the subscription and give {seats} seats: in the console, under Admin for Gemini."]
    if edition is None:
        points.append("Decide the edition (usage.code_assist_edition): only enterprise can be adapted to our own code.")
    if edition == ENTERPRISE and settings.assistant and settings.assistant.code_assist.repository_link is None:
        points.append("Connect the repository in Developer Connect: a person consents in the browser.")
    points.append("Temperature and length of answers are settings of the API alone: Code Assist has none.")
    return tuple(points)


def _names(settings: Settings) -> tuple[str, str]:
    if not (settings.project and settings.regions and settings.assistant and settings.usage):
        raise ParameterError(
            f"environment {settings.environment.name} has no sections project, regions, assistant and usage"
        )
    return settings.project.id, settings.regions.primary


def _edition(settings: Settings) -> str | None:
    return settings.usage.code_assist_edition if settings.usage else None


def _aiexclude() -> str:
    return "\n".join("\n".join((f"# {why}", *patterns)) for why, patterns in _EXCLUDED) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
