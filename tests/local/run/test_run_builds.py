"""Builds: what of a Dockerfile is followed, what is packed and checked, what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_planes import DOCKERFILE, LOCATION, REPOSITORY, source

from orchestra_lib.local.run import images
from orchestra_lib.local.run.dockerfile import Copied, DockerfileError, Stage, read
from orchestra_lib.local.run.images import ImageError, load, pack

# --- Dockerfiles ---


def test_the_last_stage_counts_with_what_it_begins_from():
    stage = read(
        """
        # syntax=docker/dockerfile:1
        ARG VERSION=3.11
        FROM python:${VERSION} AS base
        ENV A=1 B="two words"
        WORKDIR /srv
        FROM python AS builder
        RUN pip wheel \\
            --wheel-dir /wheels .
        FROM base
        ENV C=$A-${D:-none}
        COPY --from=builder /wheels /wheels
        COPY --chown=1000 a.py b.py ./
        WORKDIR app
        EXPOSE 8080
        ENTRYPOINT ["python"]
        CMD ["-m", "app"]
        """,
        {},
    )
    assert stage.environment == {"A": "1", "B": "two words", "C": "1-none"}
    assert stage.working_directory == "/srv/app"
    assert stage.copies == [Copied(("a.py", "b.py"), "/srv", True)]
    assert (stage.entrypoint, stage.arguments) == (("python",), ("-m", "app"))
    assert stage.left_out == ["COPY --from=builder /wheels /wheels"]


def test_a_command_without_brackets_is_a_shells():
    stage = read("FROM x\nCMD uvicorn app:app --port $PORT", {})
    assert stage.arguments == ("/bin/sh", "-c", "uvicorn app:app --port $PORT")
    assert images.modules_of(stage.arguments) == ("app",)


def test_an_argument_of_the_build_goes_before_its_default():
    text = "FROM x\nARG COLOUR=blue\nENV COLOUR=${COLOUR}"
    assert read(text, {}).environment == {"COLOUR": "blue"}
    assert read(text, {"COLOUR": "green"}).environment == {"COLOUR": "green"}


@pytest.mark.parametrize("text", ["", "RUN x", "FROM x\nCOPY a", "FROM x\nRUN a \\"])
def test_what_is_no_dockerfile_is_refused(text):
    with pytest.raises(DockerfileError):
        read(text, {})


@pytest.mark.parametrize(
    ("command", "modules"),
    [
        (("uvicorn", "pkg.app:create()", "--factory"), ("pkg.app",)),
        (("python3", "-m", "pkg"), ("pkg",)),
        (("sh", "-c", "exec gunicorn -b 0.0.0.0:8080 pkg:app"), ("pkg",)),
        (("node", "server.js"), ()),
    ],
)
def test_the_module_of_a_command_is_known(command, modules):
    assert images.modules_of(command) == modules


# --- images ---

NAMES = st.sampled_from(["a.py", "b/c.txt", "b/d.py", "e"])


@settings(max_examples=25, deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=20), min_size=1), changed=st.binary(max_size=20))
def test_a_digest_follows_from_what_is_packed_alone(tmp_path_factory, files, changed):
    def packed(content):
        scratch = tmp_path_factory.mktemp("build")
        place = scratch / "context"
        for name, raw in content.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(raw)
        return pack(Stage(copies=[Copied((".",), "/srv", True)], arguments=("x",)), place, scratch / "store")

    first = next(iter(files))
    assert packed(files).digest == packed(dict(reversed(files.items()))).digest
    other = packed({**files, first: changed})
    assert (other.digest == packed(files).digest) == (changed == files[first])


def test_an_image_is_found_by_its_digest_wherever_its_store_was_moved(tmp_path):
    (tmp_path / "f").write_text("x")
    made = pack(Stage(copies=[Copied(("f",), "/srv/g", False)], arguments=("x",)), tmp_path, tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    found = load(made.digest, tmp_path / "two")
    assert (found.files, found.size_bytes) == (1, 1)
    assert (tmp_path / "two").as_posix() in found.root
    assert load("sha256:" + 64 * "0", tmp_path / "two") is None
    assert load("", tmp_path / "two") is None


@pytest.mark.parametrize("outside", ["../secret", "missing", "link"])
def test_only_files_of_the_context_are_packed(tmp_path, outside):
    context = tmp_path / "context"
    context.mkdir()
    (tmp_path / "secret").write_text("s")
    (context / "link").symlink_to(tmp_path / "secret")
    with pytest.raises((ImageError, NotImplementedError)):
        pack(Stage(copies=[Copied((outside,), "/srv", True)], arguments=("x",)), context, tmp_path / "store")


# --- builds ---


def detail(operation):
    return operation["metadata"]["build"]["statusDetail"]


def test_a_build_packs_and_pushes_and_says_what_it_left_out(planes):
    operation = planes.build(source(), f"{REPOSITORY}/packed:v1")
    build = operation["metadata"]["build"]
    (pushed,) = build["results"]["images"]
    assert build["status"] == "SUCCESS"
    assert "packed 3 files as sha256:" in detail(operation)
    assert "RUN pip install -r requirements.txt; USER 1000" in detail(operation)
    package = f"artifactregistry/v1/{LOCATION}/repositories/images"
    tag = planes.call("GET", f"{package}/packages/packed/tags/v1").body
    assert tag["version"].endswith(pushed["digest"])
    (image,) = [
        one for one in planes.call("GET", f"{package}/dockerImages").body["dockerImages"] if "packed" in one["name"]
    ]
    assert (image["uri"], image["tags"]) == (f"{REPOSITORY}/packed@{pushed['digest']}", ["v1"])


def test_a_tag_that_stays_is_not_moved(planes):
    first = planes.build(source(), f"{REPOSITORY}/kept:v1")
    same = planes.build(source(), f"{REPOSITORY}/kept:v1")
    assert first["response"]["results"]["images"] == same["response"]["results"]["images"]
    other = planes.build(source(**{"service/more.py": "x = 1"}), f"{REPOSITORY}/kept:v1")
    assert "tag immutability" in other["error"]["message"]
    assert other["metadata"]["build"]["status"] == "FAILURE"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"service/app.py": "import a_module_that_is_not_there"}, "No module named 'a_module_that_is_not_there'"),
        ({"service/other.py": "def broken(:"}, "a file does not compile"),
        ({"Dockerfile": f"{DOCKERFILE}COPY nothing.txt ."}, "no nothing.txt in the build's context"),
        ({"Dockerfile": "RUN x"}, "line 1: RUN stands before FROM"),
    ],
)
def test_a_build_that_could_not_start_fails_with_the_reason(planes, files, said):
    operation = planes.build(source(**files), f"{REPOSITORY}/broken:v1")
    assert said in operation["error"]["message"]
    assert said in detail(operation)


def test_a_script_of_a_build_finds_nothing_that_reaches_a_cloud(planes):
    script = "for name in gcloud docker curl git python3 ssh; do ! command -v $name || exit 7; done; touch found"
    body = {"steps": [{"name": "ubuntu", "script": f"#!/usr/bin/env bash\n{script}\nls found"}]}
    operation = planes.ended("cloudbuild/v1", planes.call("POST", f"cloudbuild/v1/{LOCATION}/builds", body))
    assert detail(operation) == "Every step was carried out."


def test_a_step_that_cannot_be_carried_out_is_named(planes):
    body = {"steps": [{"name": "gcr.io/cloud-builders/gcloud", "args": ["run", "deploy"]}]}
    operation = planes.ended("cloudbuild/v1", planes.call("POST", f"cloudbuild/v1/{LOCATION}/builds", body))
    assert operation["metadata"]["build"]["status"] == "SUCCESS"
    assert "Step 1 was not carried out" in detail(operation)
