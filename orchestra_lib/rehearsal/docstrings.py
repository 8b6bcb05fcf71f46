"""Memory items out of the running Python's standard library: every module, class and function with a docstring."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests describe the library's internals, not its use, and distributions often leave them out.
_LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
_EXCERPT_CHARACTERS = 600
_ITEMS_A_SESSION = 20
_USERS = 40
_PERSONAS = ("Cherry", "Cherry", "Cherry", "Sophia", "Gordon Gekko")  # Cherry is the default

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Item:
    """One memory before it has an embedding. ``first_sentence`` opens the docstring; ``rest`` is what follows."""

    id: str
    agent_id: str
    user_id: str
    session_id: str
    persona: str
    item_type: str
    signature: str
    first_sentence: str
    rest: str
    excerpt: str
    line: int

    def content(self, *, with_first_sentence: bool) -> str:
        """Signature, docstring and source excerpt; without the first sentence when that is asked as a question."""
        opening = f"{self.first_sentence} " if with_first_sentence else ""
        return f"{self.signature}\n\n{opening}{self.rest}\n\n{self.excerpt}".strip()


def standard_library() -> Path:
    """The folder of the running Python's own library."""
    return Path(sysconfig.get_path("stdlib"))


def collect(folder: Path | None = None) -> tuple[Item, ...]:
    """The items of a folder of Python files, in the order of their modules; ids are unique."""
    root = folder or standard_library()
    seen: Counter[str] = Counter()
    items: list[Item] = []
    for path in python_files(root):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        items += _of_module(path, module, seen)
    return tuple(items)


def python_files(folder: Path) -> Iterator[Path]:
    """The files that items are taken from, in the order of their paths."""
    return (path for path in sorted(folder.rglob("*.py")) if _LEFT_OUT.isdisjoint(path.relative_to(folder).parts))


def _of_module(path: Path, module: str, seen: Counter[str]) -> Iterator[Item]:
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's own old escapes are not ours to report
            tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return  # the library holds files that are wrong on purpose
    lines = source.splitlines()
    for number, (name, node, text) in enumerate(_documented(tree, module)):
        seen[name] += 1
        # A property's setter has its getter's name.
        identity = name if seen[name] == 1 else f"{name}#{seen[name]}"
        agent = module.partition(".")[0]
        first, rest = _split(text)
        yield Item(
            id=identity,
            agent_id=agent,
            user_id=f"user-{_number(module) % _USERS:02}",
            session_id=f"{module}/{number // _ITEMS_A_SESSION:03}",
            persona=_PERSONAS[_number(agent) % len(_PERSONAS)],
            item_type=_KINDS[type(node)],
            signature=_signature(node, identity),
            first_sentence=first,
            rest=rest,
            excerpt=_excerpt(node, lines),
            line=getattr(node, "lineno", 1),
        )


_KINDS: dict[type[ast.AST], str] = {
    ast.Module: "module",
    ast.ClassDef: "class",
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "function",
}


def _documented(tree: ast.Module, module: str) -> Iterator[tuple[str, _Documented, str]]:
    def walk(node: ast.AST, qualified: str) -> Iterator[tuple[str, _Documented, str]]:
        if isinstance(node, _Documented):
            text = ast.get_docstring(node)
            if text and text.strip():
                yield f"{module}:{qualified}" if qualified else module, node, text.strip().replace("\0", "")
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            yield from walk(child, f"{qualified}.{child.name}".lstrip(".") if named else qualified)  # type: ignore[attr-defined]

    yield from walk(tree, "")


def _split(text: str) -> tuple[str, str]:
    """The first sentence of a docstring, on one line, and the rest."""
    match = re.match(r"(.+?[.!?])(?=\s|$)|(.+?)(?=\n\s*\n|$)", text, re.DOTALL)
    first = match[0] if match else text
    return " ".join(first.split()), text[len(first) :].strip()


def _signature(node: _Documented, identity: str) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"def {identity.partition(':')[2]}({ast.unparse(node.args)})"
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {identity.partition(':')[2]}({bases})"
    return f"module {identity}"


def _excerpt(node: _Documented, lines: list[str]) -> str:
    """Source after the docstring, so that the held-out sentence is not in it."""
    body = node.body
    if len(body) < 2:
        return ""
    last = getattr(node, "end_lineno", None) or len(lines)
    return "\n".join(lines[body[1].lineno - 1 : last])[:_EXCERPT_CHARACTERS].replace("\0", "")


def _number(text: str) -> int:
    """A number that is the same in every process, unlike ``hash``."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
