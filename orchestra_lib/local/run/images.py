"""Images: the files of a build's context as its Dockerfile arranges them, with their command, kept by their digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestra_lib.local.run.dockerfile import Copied, Stage

_RECORD, _ROOT = "image.json", "root"
_SHELL_FLAG = "-c"
_APPLICATION = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?$")
_PATH = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin"))
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".git")


class ImageError(Exception):
    """No image could be made; the message says why."""


@dataclass(frozen=True)
class Image:
    """A packed image. ``root`` holds its files; paths in it are those of the container."""

    digest: str
    root: str
    working_directory: str
    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    files: int
    size_bytes: int
    left_out: tuple[str, ...]
    """Instructions of its Dockerfile that were not carried out."""

    @property
    def command(self) -> tuple[str, ...]:
        """What runs when nobody says otherwise."""
        return (*self.entrypoint, *self.arguments)

    @property
    def directory(self) -> Path:
        """Where its command runs."""
        return Path(self.root) / self.working_directory.lstrip("/")

    def run_as(self, command: Sequence[str]) -> list[str]:
        """A command as this machine can run it: paths of the image are where its files lie, programs are ours."""
        own = [self._here(word) for word in command]
        own[0] = _program(own[0])
        return own

    def variables(self) -> dict[str, str]:
        """What its processes have in their environment; the packed files go before what is installed here."""
        path = self.environment.get("PYTHONPATH", "")
        places = [self._here(place) for place in path.split(os.pathsep) if place] or [str(self.directory)]
        return {
            "LANG": "C.UTF-8",
            "HOME": str(self.directory),
            **self.environment,
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), _PATH)),
            "PYTHONPATH": os.pathsep.join(places),
            "PYTHONPYCACHEPREFIX": str(
                Path(self.root).parent / "bytecode"
            ),  # beside the files, which stay as they were
        }

    def _here(self, word: str) -> str:
        inside = Path(self.root) / word.lstrip("/")
        return str(inside) if word.startswith("/") and word != "/" and inside.exists() else word


def pack(stage: Stage, context: Path, store: Path) -> Image:
    """Arrange the files of a context as a stage says and keep them. Raises ImageError."""
    store.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=store))
    try:
        root = scratch / _ROOT
        (root / stage.working_directory.lstrip("/")).mkdir(parents=True)
        for copied in stage.copies:
            _copy(copied, context, root)
        digest = _digest(root, stage)
        final = store / digest.removeprefix("sha256:")
        files = [path for path in root.rglob("*") if path.is_file()]
        image = Image(
            digest=digest,
            root=str(final / _ROOT),
            working_directory=stage.working_directory,
            entrypoint=stage.entrypoint,
            arguments=stage.arguments,
            environment=dict(stage.environment),
            files=len(files),
            size_bytes=sum(path.stat().st_size for path in files),
            left_out=tuple(stage.left_out),
        )
        (scratch / _RECORD).write_text(json.dumps(asdict(image), indent=1))
        if not final.exists():
            scratch.rename(final)
        return image
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load(digest: str, store: Path) -> Image | None:
    """The image of a digest; None if it is not here."""
    file = store / digest.removeprefix("sha256:") / _RECORD
    if not digest or not file.exists():
        return None
    written = json.loads(file.read_text())
    lists = {name: tuple(written[name]) for name in ("entrypoint", "arguments", "left_out")}
    return Image(**{**written, **lists, "root": str(file.parent / _ROOT)})


def modules_of(command: Sequence[str]) -> tuple[str, ...]:
    """The modules that a Python command imports: ``uvicorn package.module:app``, ``python -m package``."""
    words = [word for part in command for word in (part.split() if _SHELL_FLAG in command else [part])]
    found = [word.partition(":")[0] for word in words if _APPLICATION.match(word)]
    for at, word in enumerate(words[:-1]):
        if word == "-m" and at and Path(words[at - 1]).name.startswith("python"):
            found.append(words[at + 1])
    return tuple(found)


def _copy(copied: Copied, context: Path, root: Path) -> None:
    destination = root / copied.destination.lstrip("/")
    for pattern in copied.sources:
        sources = list(_found(pattern, context))
        if not sources:
            raise ImageError(f"COPY: no {pattern} in the build's context")
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, destination, dirs_exist_ok=True, ignore=_IGNORED)
                continue
            target = destination / source.name if copied.is_directory or destination.is_dir() else destination
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _found(pattern: str, context: Path) -> Iterator[Path]:
    inside = pattern.lstrip("/")
    if inside in ("", ".", "./"):
        yield context
        return
    for path in sorted(context.glob(inside)):
        if not path.resolve().is_relative_to(context.resolve()):
            raise ImageError(f"COPY: {pattern} lies outside of the build's context")
        yield path


def _digest(root: Path, stage: Stage) -> str:
    """Of the files' paths, rights to be run and contents, and of what is run."""
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        is_program = bool(path.stat().st_mode & 0o100)
        total.update(f"{path.relative_to(root)}\0{is_program}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    told = (stage.environment, stage.working_directory, stage.entrypoint, stage.arguments)
    total.update(json.dumps(told, sort_keys=True).encode())
    return f"sha256:{total.hexdigest()}"


def _program(name: str) -> str:
    """A program of this machine: our interpreter and what is installed beside it go first."""
    if Path(name).is_file():
        return name
    short = Path(name).name
    if re.fullmatch(r"python(3(\.\d+)?)?", short):
        return sys.executable
    beside = Path(sysconfig.get_path("scripts")) / short
    return str(beside) if beside.is_file() else shutil.which(short, path=_PATH) or name
