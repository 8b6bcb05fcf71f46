"""Prompt templates: files under version control, named in the settings, known in every record by their digest."""

from __future__ import annotations

import hashlib
import importlib.resources
from dataclasses import dataclass
from string import Template

from orchestra_lib.errors import ParameterError

_FOLDER = "prompts"
_PLACES = {"memories", "question"}
_DIGITS = 12


@dataclass(frozen=True)
class Prompt:
    """A system instruction, and a template of the user's turn with the places ``$memories`` and ``$question``."""

    name: str
    system: str
    user: str

    @property
    def version(self) -> str:
        """Name and digest of both texts, ``memory_answer@0123456789ab``: changes with every change of a word."""
        digest = hashlib.sha256(f"{self.system}\0{self.user}".encode()).hexdigest()
        return f"{self.name}@{digest[:_DIGITS]}"

    def fill(self, memories: str, question: str) -> str:
        """The user's turn. The memories cannot end their own section: the marks of its ends are taken out of them."""
        return Template(self.user).substitute(memories=_unmarked(memories), question=question.strip())


def load_prompt(name: str) -> Prompt:
    """The prompt of a name. Raises ParameterError when there is none, or its template has other places."""
    folder = importlib.resources.files("orchestra_lib.assistant").joinpath(_FOLDER)
    there = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
    if name not in there:
        raise ParameterError(f"assistant.prompt is {name!r}; there are {', '.join(there) or 'none'}")
    texts = {
        part: folder.joinpath(name, f"{part}.md").read_text(encoding="utf-8").strip() for part in ("system", "user")
    }
    template = Template(texts["user"])
    if not template.is_valid() or set(template.get_identifiers()) != _PLACES:
        found = ", ".join(f"${place}" for place in template.get_identifiers()) or "none"
        raise ParameterError(f"prompt {name}: user.md has the places {found}; it has to have $memories and $question")
    return Prompt(name, texts["system"], texts["user"])


def _unmarked(text: str) -> str:
    return text.replace("<memories>", "(memories)").replace("</memories>", "(/memories)")
