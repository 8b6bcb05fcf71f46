"""The image's tag is its source's: the same files the same tag, any other file another; and it is built once."""

from __future__ import annotations

import os
from pathlib import Path

from run_planes import PROJECT, REGION

from orchestra_lib.cloud.client import Client
from orchestra_lib.rollout.image import DOCKERFILE, Repository, build, is_built, source_of


def checkout(root: Path, content: str = "") -> Path:
    for name, text in (
        (DOCKERFILE, 'FROM scratch\nCOPY orchestra_lib orchestra_lib\nCMD ["python", "-m", "orchestra_lib"]\n'),
        ("orchestra_lib/__init__.py", ""),
        ("orchestra_lib/__main__.py", content),
        ("orchestra_lib/__pycache__/a.pyc", str(root)),
        ("notes.txt", str(root)),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_tag_tells_one_source_from_another_and_nothing_else(tmp_path: Path) -> None:
    one, again = checkout(tmp_path / "one"), checkout(tmp_path / "again")
    os.utime(again / DOCKERFILE, (0, 0))
    assert source_of(one) == source_of(again)
    assert source_of(checkout(tmp_path / "other", "1")).tag != source_of(one).tag


def test_an_image_is_built_when_its_tag_is_not_there_and_then_no_more(bench, tmp_path: Path) -> None:
    source, repository = source_of(checkout(tmp_path)), Repository(PROJECT, REGION, "images")
    client: Client = bench.client
    assert not is_built(client, repository, "memory-api", source.tag)
    image = build(client, repository, "memory-api", source)
    assert image.endswith(f"/memory-api:{source.tag}")
    assert is_built(client, repository, "memory-api", source.tag)
    path = f"cloudbuild/v1/projects/{PROJECT}/locations/{REGION}/builds"
    before = len(bench.planes.call("GET", path).body["builds"])
    assert build(client, repository, "memory-api", source) == image
    assert len(bench.planes.call("GET", path).body["builds"]) == before
