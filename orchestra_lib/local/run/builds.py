"""Cloud Build's part: the steps of a build that can be carried out here, and what is said of those that cannot.

A step with a script runs in a shell of this machine, in a scratch directory, and finds a few tools alone: nothing that
could reach anybody's cloud. A step of Docker's builder packs an image. https://cloud.google.com/build/docs/build-config-file-schema
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra_lib.local.run import images
from orchestra_lib.local.run.dockerfile import DockerfileError, read
from orchestra_lib.local.run.images import Image, ImageError

_DOCKER = "gcr.io/cloud-builders/docker"
_TOOLS = ("base64", "basename", "bash", "cat", "chmod", "cp", "dirname", "echo", "env", "find", "gzip", "ls", "mkdir")
_MORE_TOOLS = ("mktemp", "mv", "printf", "rm", "sed", "sh", "sha256sum", "tar", "test", "touch", "true")
_SUBSTITUTION = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_VALUED = frozenset({"-t", "--tag", "-f", "--file", "--build-arg", "--target", "--platform", "--cache-from"})
_LONGEST_WORDS = 60


class BuildFailed(Exception):
    """A step failed; the message says which and why."""


@dataclass
class _Built:
    """The images by tag, and what was not done."""

    images: dict[str, Image] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    is_whole: bool = True
    """Whether every step was carried out."""


def carry_out(build: Mapping[str, Any], store: Path) -> dict[str, Any]:
    """Run a build; returns ``{"images": [{"name", "digest", "bytes"}], "detail"}``. Raises BuildFailed."""
    scratch = Path(tempfile.mkdtemp(prefix="orchestra-build-"))
    built = _Built()
    try:
        workspace, tools = scratch / "workspace", scratch / "bin"
        workspace.mkdir()
        _gather_tools(tools)
        seconds = float(build.get("timeout", "600s").removesuffix("s"))
        for number, step in enumerate(build.get("steps", ()), 1):
            _run(_named(step, number), _substituted(step, build), workspace, tools, store, built, seconds)
        pushed = [_pushed(_substituted_text(name, build), built) for name in build.get("images", ())]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"images": [one for one in pushed if one], "detail": " ".join(built.notes) or "Every step was carried out."}


def _run(
    name: str, step: Mapping[str, Any], workspace: Path, tools: Path, store: Path, built: _Built, seconds: float
) -> None:
    directory = workspace / step.get("dir", "")
    arguments = step.get("args", [])
    if step.get("script"):
        _run_script(name, step["script"], directory, tools, seconds)
    elif step.get("name", "").partition(":")[0] == _DOCKER and arguments[:1] == ["build"]:
        _build_image(name, arguments[1:], directory, store, built)
    elif step.get("name", "").partition(":")[0] == _DOCKER and arguments[:1] == ["push"]:
        return  # what is built here is in the registry when the build ends
    else:
        built.is_whole = False
        built.notes.append(f"{name} was not carried out: the local Google Cloud does not have {step.get('name')}.")


def _run_script(name: str, script: str, directory: Path, tools: Path, seconds: float) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    file = tools.parent / "script"
    file.write_text(script)
    try:
        done = subprocess.run(
            [tools / "bash", file],
            cwd=directory,
            env={"PATH": str(tools), "HOME": str(directory), "LANG": "C.UTF-8"},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{name} did not end within {seconds:g} s") from error
    if done.returncode != 0:
        raise BuildFailed(f"{name} ended with exit code {done.returncode}: {_last_lines(done.stderr or done.stdout)}")


def _build_image(name: str, arguments: list[str], directory: Path, store: Path, built: _Built) -> None:
    tags, file, build_arguments, context = _options(arguments)
    path = directory / (file or Path(context) / "Dockerfile")
    try:
        stage = read(path.read_text(), build_arguments)
    except FileNotFoundError as error:
        raise BuildFailed(
            f"{name}: failed to read Dockerfile: open {path.relative_to(directory)}: no such file"
        ) from error
    except DockerfileError as error:
        raise BuildFailed(f"{name}: the Dockerfile cannot be followed: {error}") from error
    if not (stage.entrypoint or stage.arguments):
        words = "its command is its base image's, and no base images are here"
        built.is_whole = False
        built.notes.append(f"{name} made no image: {words}.")
        return
    try:
        image = images.pack(stage, directory / context, store)
    except ImageError as error:
        raise BuildFailed(f"{name}: {error}") from error
    _check(name, image)
    built.notes.append(f"{name} packed {image.files} files as {image.digest}; there is no Docker engine here.")
    if image.left_out:
        left_out = "; ".join(one[:_LONGEST_WORDS] for one in image.left_out)
        built.notes.append(f"Not carried out, the packages are those of this machine: {left_out}.")
    built.images.update(dict.fromkeys(tags, image))


def _check(name: str, image: Image) -> None:
    """Compile the packed files and import what the command imports. Raises BuildFailed."""
    modules = images.modules_of(image.command)
    program = "import compileall, importlib, sys\n"
    program += "compileall.compile_dir(sys.argv[1], quiet=1, force=False) or sys.exit('a file does not compile')\n"
    program += "for name in sys.argv[2:]: importlib.import_module(name)\n"
    done = subprocess.run(
        [sys.executable, "-c", program, image.root, *modules],
        cwd=image.directory,
        env=image.variables(),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = _last_lines(done.stdout + done.stderr)
        raise BuildFailed(f"{name}: the image's command {list(image.command)} could not start: {said}")


def _options(arguments: list[str]) -> tuple[list[str], str, dict[str, str], str]:
    """Tags, Dockerfile, build arguments and context of ``docker build``."""
    tags, file, given, rest = [], "", {}, []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option in _VALUED and not equals:
            value = next(words, "")
        if option in ("-t", "--tag"):
            tags.append(value)
        elif option in ("-f", "--file"):
            file = value
        elif option == "--build-arg":
            key, _, content = value.partition("=")
            given[key] = content
        elif not word.startswith("-"):
            rest.append(word)
    return tags, file, given, rest[-1] if rest else "."


def _pushed(name: str, built: _Built) -> dict[str, Any] | None:
    image = built.images.get(name)
    if image is None:
        if built.is_whole:
            raise BuildFailed(f"failed to find one or more images after execution of build steps: [{name!r}]")
        return None
    return {"name": name, "digest": image.digest, "bytes": image.size_bytes}


def _substituted(step: Mapping[str, Any], build: Mapping[str, Any]) -> dict[str, Any]:
    """A step with the substitutions in what is not a script."""
    arguments = [_substituted_text(word, build) for word in step.get("args", ())]
    return {**step, "args": arguments, "name": _substituted_text(step.get("name", ""), build)}


def _substituted_text(text: str, build: Mapping[str, Any]) -> str:
    known = {
        **build.get("substitutions", {}),
        "PROJECT_ID": build.get("projectId", ""),
        "BUILD_ID": build.get("id", ""),
    }
    return _SUBSTITUTION.sub(lambda found: str(known.get(found[1] or found[2], found[0])), text)


def _gather_tools(directory: Path) -> None:
    directory.mkdir()
    for name in (*_TOOLS, *_MORE_TOOLS):
        if found := shutil.which(name, path=os.pathsep.join(("/usr/bin", "/bin"))):
            (directory / name).symlink_to(found)


def _named(step: Mapping[str, Any], number: int) -> str:
    return f"Step {number} ({step['id']})" if step.get("id") else f"Step {number}"


def _last_lines(text: str, lines: int = 3) -> str:
    return " | ".join(text.strip().splitlines()[-lines:])
