"""The arguments that Google's Terraform provider takes, from ``arguments.json`` beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

GA, BETA = "google", "google-beta"
"""The providers: what is in preview, and API Gateway still is, the second one has alone."""

PROVIDER_SOURCES = {GA: "hashicorp/google", BETA: "hashicorp/google-beta"}
PROVIDER_VERSION = "~> 8.0"
"""The upgrade guides to 7.0 and 8.0 change none of the arguments in the file but the one that is left out of it.

https://registry.terraform.io/providers/hashicorp/google/latest/docs/guides/version_8_upgrade
"""

TERRAFORM_VERSION = ">= 1.5.0"
"""The first version with import blocks: https://developer.hashicorp.com/terraform/language/import"""


@dataclass(frozen=True)
class Block:
    """A resource or a block in one: its arguments by name, a type's name (``set of string``) or a block each."""

    arguments: Mapping[str, str | Block]
    required: frozenset[str]
    many: bool


@cache
def resource_types() -> Mapping[str, Block]:
    """The types of resource that are exported, by name."""
    content = json.loads((files(__package__) / "arguments.json").read_text())
    return MappingProxyType({name: _block(block) for name, block in content["resources"].items()})


def _block(content: Mapping[str, Any]) -> Block:
    arguments = {
        name: argument if isinstance(argument, str) else _block(argument)
        for name, argument in content["arguments"].items()
    }
    return Block(MappingProxyType(arguments), frozenset(content.get("required", ())), content.get("many", False))
