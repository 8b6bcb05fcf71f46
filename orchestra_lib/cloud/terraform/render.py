"""The text of an export's files: blocks by topic, the provider, and the page that says what it is. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_lib.cloud.terraform.convert import Converted, as_json
from orchestra_lib.cloud.terraform.schema import GA, PROVIDER_SOURCES, PROVIDER_VERSION, TERRAFORM_VERSION
from orchestra_lib.errors import RecordError
from orchestra_lib.redaction import survivors

_README = """\
# Infrastructure of {project}, for Terraform

What the runbooks of environment `{environment}` made, as Terraform resources, each with the `import` block that takes
over the existing one. Written by `python -m orchestra_lib export terraform`; nothing in it was changed by hand.
{rehearsal}
## Where it comes from

{sources}

## How to go on

1. Log in: `gcloud auth application-default login`. Choose a backend for the state before the first apply.
2. `terraform init`
3. `terraform plan` has to say **{imports} to import, 0 to add, 0 to destroy**. Changes in place may only be those
   listed below. Anything else means that this export and the project differ: look before you apply.
4. `terraform apply` writes the state. Then remove the `import` blocks, and change the infrastructure here and no
   longer with the runbooks of these phases: two owners undo each other's work.

## What the first plan may show as changed

The provider does not read these arguments back, so the first plan fills them in. The API gets the values that it has.

{bookkeeping}

## What is in it

{contents}

References are plain values; `depends_on` keeps the order in which things were made.

## What it does not cover

- The values of secrets: there is none in these files, and none is to be added. Nor what lies in registries, log
  buckets and databases.
- What was there already when a runbook came, and was as it was wanted: the journal has no word of it.
- The parts of the IAM policy that others wrote: roles are `*_iam_member`, which leave the rest alone.
{gaps}"""

_REHEARSAL = """
**This comes from a rehearsal.** The resources exist in the local target only: on Google Cloud there is nothing to
import. It shows what an export looks like; export the real environment to hand it over.
"""


@dataclass(frozen=True)
class Source:
    """A journal: its phase, where it lies, the SHA-256 of its bytes, and the runs that it holds."""

    phase: str
    path: Path
    sha256: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Where an export comes from, and how the live state differs from the journals."""

    environment: str
    kind: str
    project: str
    region: str
    sources: tuple[Source, ...]
    adopted: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    drifted: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def render(converted: Sequence[Converted], origin: Origin) -> dict[str, str]:
    """The files by name. Raises RecordError rather than let a secret into one of them."""
    files = {"README.md": _readme(converted, origin), "providers.tf.json": _text(_providers(converted, origin))}
    for topic in sorted({one.row.topic for one in converted}):
        files[f"{topic}.tf.json"] = _text(_blocks(one for one in converted if one.row.topic == topic))
    for name, text in files.items():
        if survivors(text):
            raise RecordError(f"{name} would hold a secret: nothing was written; take it out of the resource first")
    return files


def _providers(converted: Sequence[Converted], origin: Origin) -> dict[str, Any]:
    names = sorted({GA, *(one.row.provider for one in converted)})
    required = {name: {"source": PROVIDER_SOURCES[name], "version": PROVIDER_VERSION} for name in names}
    configured = {
        "project": origin.project,
        "region": origin.region,
        # A label of the provider's own would be a change of every resource.
        "add_terraform_attribution_label": False,
        # Billing budgets want a project that pays for the call where people log in as themselves.
        "user_project_override": True,
        "billing_project": origin.project,
    }
    return {
        "terraform": {"required_version": TERRAFORM_VERSION, "required_providers": required},
        "provider": dict.fromkeys(names, configured),
    }


def _blocks(converted: Iterable[Converted]) -> dict[str, Any]:
    resources: dict[str, dict[str, Any]] = {}
    imports = []
    for one in converted:
        body, import_ = as_json(one)
        resources.setdefault(one.row.type, {})[one.name] = body
        imports.append(import_)
    return {"import": imports, "resource": resources}


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _readme(converted: Sequence[Converted], origin: Origin) -> str:
    counted = Counter((one.row.topic, one.row.type) for one in converted)
    contents = _table(
        ("file", "resources", "number"),
        [(f"{topic}.tf.json", f"`{type_}`", number) for (topic, type_), number in sorted(counted.items())],
    )
    sources = _table(
        ("phase", "journal", "SHA-256", "runs"),
        [(one.phase, f"`{one.path}`", f"`{one.sha256}`", ", ".join(one.runs)) for one in origin.sources],
    )
    rows = {one.row.type: one.row.bookkeeping for one in converted if one.row.bookkeeping}
    kept = [(f"`{type_}`", ", ".join(f"`{name}`" for name in names)) for type_, names in sorted(rows.items())]
    return _README.format(
        project=origin.project,
        environment=origin.environment,
        rehearsal=_REHEARSAL if origin.kind == "local" else "",
        sources=sources,
        imports=len(converted),
        bookkeeping=_table(("resource", "arguments"), kept),
        contents=contents,
        gaps=_gaps(converted, origin),
    )


def _gaps(converted: Sequence[Converted], origin: Origin) -> str:
    """What is not said, block by block; sections without a line are left out."""
    unsaid = [f"`{one.address}`: {note}" for one in converted for note in one.notes]
    sections = (
        ("Not said, because the provider cannot or because it is secret", unsaid),
        ("Different now from what was applied last: the first plan would change it back", origin.drifted),
        ("Applied once and gone since: not exported", origin.gone),
        ("The last change failed: exported as applied before, if it ever was", origin.failed),
        ("There before the runbooks and taken over as they were: exported with the rest", origin.adopted),
    )
    return "".join(f"\n## {title}\n\n" + "".join(f"- {line}\n" for line in lines) for title, lines in sections if lines)


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
