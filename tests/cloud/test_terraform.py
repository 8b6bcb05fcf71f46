"""What a run made becomes Terraform resources with their imports: complete, valid in form, and nothing dropped."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from stacks import stack

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.api import api, revision_template
from orchestra_lib.blueprint.memory import memory
from orchestra_lib.cloud import access
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.resource import Live, Resource, resolve
from orchestra_lib.cloud.rollback import rollback_plan
from orchestra_lib.cloud.terraform import export_terraform, folder
from orchestra_lib.cloud.terraform.convert import Converted, as_json, convert
from orchestra_lib.cloud.terraform.export import Export, export_journals
from orchestra_lib.cloud.terraform.render import Origin, Source, render
from orchestra_lib.cloud.terraform.rows import ROWS, Row
from orchestra_lib.cloud.terraform.schema import Block, resource_types
from orchestra_lib.errors import GateFailed, ParameterError, RecordError
from orchestra_lib.plan import Verb
from orchestra_lib.secret import MASK, Secret

pytestmark = pytest.mark.slow

META = {"//", "depends_on", "lifecycle", "provider"}
IDENTIFIER = re.compile(r"[a-z_][a-z0-9_-]*")
SCALARS: Mapping[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "bool": (bool,)}
NETWORK = Resource("network", "projects/p/global", "main", {"autoCreateSubnetworks": False})


def named(resource: Resource) -> Live:
    """A live resource with a name that is the service's to choose, and the fields that others refer to."""
    collection = KINDS[resource.kind].path_segment
    number = zlib.crc32(resource.id.encode())
    return Live(
        f"{resource.parent}/{collection}/{number}",
        {"projectNumber": "123456", "displayName": "Shown", "uri": "https://x"},
    )


def blueprint() -> list[tuple[Resource, Live]]:
    local = settings.load("local")
    template = {**revision_template(local, "image:1", {"DATABASE_USER": "api"}), "revision": "api-first"}
    interface = {
        "info": {"title": "Memory", "version": "1"},
        "paths": {"/v1/memories/{id}": {"get": {"operationId": "one", "parameters": [{"name": "id", "in": "path"}]}}},
    }
    phase_5 = api(local, template, interface, "memory").resources
    resources = [*infrastructure(local), *memory(local).resources, *phase_5]
    live = {one.key: named(one) for one in resources}
    return [(replace(one, body=resolve(one.body, live), needs=one.all_needs), live[one.key]) for one in resources]


BLUEPRINT = blueprint()
CONVERTED = convert(BLUEPRINT)
SOURCE = Source("01", Path("/journals/local.01.jsonl"), "0" * 64, ("run-1",))
ORIGIN = Origin("production", "gcp", "p", "us-central1", (SOURCE,))


def one_of(*found: tuple[Resource, Live]) -> Converted:
    (converted,) = convert(found)
    return converted


def body_of(kind: str, body: Mapping[str, Any], live: Mapping[str, Any] | None = None) -> Converted:
    """A resource of a kind of the blueprint with another body, converted."""
    resource = next(one for one, _ in BLUEPRINT if one.kind == kind)
    return one_of((replace(resource, body=body), Live(named(resource).name, live or {})))


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_kind_has_its_rows() -> None:
    assert set(ROWS) == set(KINDS)


@pytest.mark.parametrize("row", [row for rows in ROWS.values() for row in rows], ids=lambda row: row.type)
def test_a_row_names_only_arguments_that_the_provider_has(row: Row) -> None:
    arguments = resource_types()[row.type].arguments
    assert {*row.arguments, *row.constants, *row.ignored_changes} <= set(arguments)
    for place, name in row.renamed.items():
        block: Block | str = resource_types()[row.type]
        for step in (row.renamed.get(part, part) for part in place.split(".")[:-1]):
            block = block.arguments[step]  # type: ignore[union-attr]
        assert name in block.arguments  # type: ignore[union-attr]


def test_every_type_that_is_known_is_used() -> None:
    assert set(resource_types()) == {row.type for rows in ROWS.values() for row in rows}


# --- phases 1, 3 and 5, whole -----------------------------------------------------------------------------------------


def test_every_resource_is_said_whole_but_for_what_the_provider_cannot_say() -> None:
    assert {one.key for one in CONVERTED} == {resource.key for resource, _ in BLUEPRINT}
    notes = {(one.row.type, note) for one in CONVERTED for note in one.notes}
    assert notes == {("google_alloydb_instance", 'dataApiAccess = "DISABLED": the provider has no such argument')}


def test_a_secondary_cluster_takes_its_instance_along_when_it_is_destroyed() -> None:
    found = {one.import_id.rsplit("/", 1)[1]: one.arguments for one in CONVERTED if "alloydb_cluster" in one.row.type}
    assert found["orchestra-memory-dr"]["deletion_policy"] == "FORCE"
    assert "deletion_policy" not in found["orchestra-memory"]


def test_a_run_services_revisions_stay_its_rollouts_and_api_gateway_is_the_beta_providers() -> None:
    bodies = {one.row.type: as_json(one)[0] for one in CONVERTED}
    service = bodies["google_cloud_run_v2_service"]
    assert service["lifecycle"] == {"ignore_changes": ["template", "traffic"]}
    assert "provider" not in service
    for name in ("api", "api_config", "gateway"):
        assert bodies[f"google_api_gateway_{name}"]["provider"] == "google-beta"
    providers = json.loads(render(CONVERTED, ORIGIN)["providers.tf.json"])
    assert set(providers["provider"]) == set(providers["terraform"]["required_providers"]) == {"google", "google-beta"}
    alone = json.loads(render(convert([(NETWORK, named(NETWORK))]), ORIGIN)["providers.tf.json"])
    assert set(alone["provider"]) == {"google"}


def test_addresses_are_unique_and_names_are_terraforms() -> None:
    addresses = [one.address for one in CONVERTED]
    assert len(set(addresses)) == len(addresses)
    assert [one.name for one in CONVERTED if not IDENTIFIER.fullmatch(one.name)] == []


def test_imports_are_unique_and_filled_in() -> None:
    imports = [(one.row.type, one.import_id) for one in CONVERTED]
    assert len(set(imports)) == len(imports)
    assert [found for _, found in imports if not found or re.search(r"[{}]|//$|^/|None", found)] == []


def test_what_is_needed_first_is_in_the_export_and_goes_round_in_no_circle() -> None:
    needs = {one.address: set(one.needs) for one in CONVERTED}
    assert set().union(*needs.values()) <= set(needs)
    assert len(list(TopologicalSorter(needs).static_order())) == len(needs)


@pytest.mark.parametrize("one", CONVERTED, ids=lambda one: one.address)
def test_a_block_is_what_the_provider_takes(one: Converted) -> None:
    body, import_ = as_json(one)
    assert set(import_) == {"to", "id"}
    assert import_["to"] == one.address
    assert list(refusals(resource_types()[one.row.type], {k: v for k, v in body.items() if k not in META}, "")) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"ip_range": "10.0.0.0/8"}, "ip_range is unknown"),
        ({"private_ip_google_access": "yes"}, "private_ip_google_access"),
        ({"log_config": {"flow_sampling": "half"}}, "flow_sampling"),
        ({"network": None}, "network is missing"),
    ],
)
def test_the_check_of_blocks_finds_what_is_wrong(broken: dict[str, Any], words: str) -> None:
    sound = next(one for one in CONVERTED if one.row.type == "google_compute_subnetwork")
    arguments = {name: value for name, value in {**sound.arguments, **broken}.items() if value is not None}
    (refusal,) = refusals(resource_types()[sound.row.type], arguments, "")
    assert words in refusal


def refusals(block: Block, body: Any, place: str) -> list[str]:
    """What the provider would refuse, read apart from the code that converts."""
    if not isinstance(body, dict):
        return [f"{place} is no block"]
    found = [f"{place}{name} is missing" for name in block.required - set(body)]
    for name, value in body.items():
        argument = block.arguments.get(name)
        if argument is None:
            found.append(f"{place}{name} is unknown")
        elif isinstance(argument, Block):
            items = value if isinstance(value, list) else [value]
            if len(items) > 1 and not argument.many:
                found.append(f"{place}{name} may stand once")
            for item in items:
                found += refusals(argument, item, f"{place}{name}.")
        elif not _is_a(argument, value):
            found.append(f"{place}{name} is no {argument}: {value!r}")
    return found


def _is_a(type_: str, value: Any) -> bool:
    collection, _, item = type_.rpartition(" of ")
    if collection == "map":
        return isinstance(value, dict) and all(_is_a(item, one) for one in value.values())
    if collection:
        return isinstance(value, list) and all(_is_a(item, one) for one in value)
    return isinstance(value, SCALARS[item]) and (item == "bool" or not isinstance(value, bool))


# --- single kinds -----------------------------------------------------------------------------------------------------


def test_each_role_of_a_member_is_a_resource() -> None:
    member = "serviceAccount:runner@p.iam.gserviceaccount.com"
    roles = Resource("roles", "projects/p", member, {"roles": ["roles/a.b", "roles/c"]})
    assert {(one.address, one.import_id) for one in convert([(roles, named(roles))])} == {
        ("google_project_iam_member.runner_a_b", f"p roles/a.b {member}"),
        ("google_project_iam_member.runner_c", f"p roles/c {member}"),
    }


def test_a_nat_is_a_resource_of_its_own_and_needs_its_router() -> None:
    nat = {"name": "out", "natIpAllocateOption": "AUTO_ONLY", "sourceSubnetworkIpRangesToNat": "ALL"}
    body = {"network": "projects/p/global/networks/main", "nats": [nat], "bgp": {"asn": 64512}}
    router = Resource("router", "projects/p/regions/r", "edge", body)
    first, second = convert([(router, named(router))])
    assert "nats" not in first.arguments
    assert first.arguments["bgp"] == {"asn": 64512}
    assert second.import_id == "projects/p/regions/r/routers/edge/out"
    assert second.needs == ("google_compute_router.edge",)


@pytest.mark.parametrize("logged", [True, False])
def test_flow_logs_are_a_block_that_is_there_or_not(logged: bool) -> None:
    config = {"enable": logged, "flowSampling": 0.5}
    one = body_of("subnetwork", {"network": "n", "ipCidrRange": "10.0.0.0/20", "logConfig": config})
    assert one.arguments.get("log_config") == ({"flow_sampling": 0.5} if logged else None)


def test_a_firewalls_logging_says_what_it_is_live() -> None:
    body = {"network": "n", "denied": [{"IPProtocol": "all"}], "logConfig": {"enable": True}}
    one = body_of("firewall", body, {"logConfig": {"enable": True, "metadata": "EXCLUDE_ALL_METADATA"}})
    assert one.arguments["log_config"] == {"metadata": "EXCLUDE_ALL_METADATA"}
    assert one.arguments["deny"] == [{"protocol": "all"}]


def test_numbers_that_google_writes_as_text_are_numbers() -> None:
    interval = {"network": "n", "nats": [], "bgp": {"asn": "64512", "keepaliveInterval": "20"}}
    assert body_of("router", interval).arguments["bgp"] == {"asn": 64512, "keepalive_interval": 20}


def test_the_keys_of_a_map_stay_as_they_are() -> None:
    one = body_of("secret", {"replication": {"automatic": {}}, "labels": {"costCentre": "a"}})
    assert one.arguments["labels"] == {"costCentre": "a"}
    assert one.arguments["replication"] == {"auto": {}}


def test_a_folders_project_is_imported_into_its_folder() -> None:
    project = Resource("project", "folders/12", "p-1", {"parent": "folders/12", "displayName": "P"})
    arguments = one_of((project, named(project))).arguments
    assert (arguments["folder_id"], arguments["name"], "org_id" in arguments) == ("12", "P", False)


# --- nothing dropped, nothing secret ----------------------------------------------------------------------------------


def test_a_field_that_the_provider_lacks_is_said_in_the_block_and_on_the_page() -> None:
    one = one_of((replace(NETWORK, body={**NETWORK.body, "shape": {"round": True}}), named(NETWORK)))
    body, _ = as_json(one)
    assert 'shape = {"round": true}' in body["//"]
    assert 'shape = {"round": true}' in render([one], ORIGIN)["README.md"]


def test_a_nested_field_that_the_provider_lacks_is_said_with_its_path() -> None:
    one = body_of("log bucket", {"cmekSettings": {"kmsKeyName": "k", "kmsKeyColour": "red"}})
    assert one.notes == ('cmekSettings.kmsKeyColour = "red": the provider has no such argument',)
    assert one.arguments["cmek_settings"] == {"kms_key_name": "k"}


def test_what_the_provider_requires_and_nobody_asked_for_is_said() -> None:
    (note,) = body_of("firewall", {"allowed": [{"ports": ["22"]}], "network": "n"}).notes
    assert note == "allowed.protocol, which the provider requires"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("notification channel", {"type": "slack", "labels": {"channel_name": "#ops", "auth_token": "hunter2"}}),
        ("uptime check", {"timeout": "10s", "httpCheck": {"authInfo": {"username": "u", "password": "hunter2"}}}),
        ("uptime check", {"timeout": "10s", "httpCheck": {"maskHeaders": True, "headers": {"X-Key": "hunter2"}}}),
        ("alert policy", {"combiner": "OR", "conditions": [], "documentation": {"content": f"key {MASK}"}}),
    ],
)
def test_a_secret_is_not_written_and_its_place_is(kind: str, body: dict[str, Any]) -> None:
    one = body_of(kind, body)
    assert any("a secret, which is never written" in note for note in one.notes)
    for text in render([one], ORIGIN).values():
        assert "hunter2" not in text
        assert MASK not in text


def test_a_secret_that_a_live_body_brings_stops_the_export() -> None:
    secret = Secret("canary-of-the-export-staple")
    one = one_of((replace(NETWORK, body={"description": secret.reveal()}), named(NETWORK)))
    with pytest.raises(RecordError, match=r"network\.tf\.json"):
        render([one], ORIGIN)


# --- any value --------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6, unique=True))
def test_any_ids_give_valid_and_distinct_names(ids: list[str]) -> None:
    found = [replace(NETWORK, id=one) for one in ids]
    addresses = [one.address for one in convert([(one, named(one)) for one in found])]
    assert len(set(addresses)) == len(ids)
    assert all(IDENTIFIER.fullmatch(address.partition(".")[2]) for address in addresses)


@given(st.text(alphabet='${}%ab"\\\n', max_size=20))
def test_a_text_is_read_back_by_terraform_as_it_was(text: str) -> None:
    one = one_of((replace(NETWORK, body={"description": text}), named(NETWORK)))
    written = json.loads(json.dumps(as_json(one)[0]))["description"]
    assert not re.search(r"\$\{|%\{", re.sub(r"\$\$\{|%%\{", "\0", written))
    assert written.replace("$${", "${").replace("%%{", "%{") == text


@settings_of_hypothesis(max_examples=20)
@given(st.randoms())
def test_the_order_of_the_resources_changes_nothing(generator: random.Random) -> None:
    shuffled = list(BLUEPRINT)
    generator.shuffle(shuffled)
    assert render(convert(shuffled), ORIGIN) == render(CONVERTED, ORIGIN)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_and_a_teams_own_files_stay(tmp_path: Path) -> None:
    place = tmp_path / "infra"
    folder.write(place, {"a.tf.json": "{}", "old.tf.json": "{}"})
    (place / "terraform.tfstate").write_text("state")
    folder.write(place, {"a.tf.json": '{"new": 1}'})
    assert {path.name for path in place.iterdir()} == {"a.tf.json", folder.MANIFEST, "terraform.tfstate"}
    assert (place / "a.tf.json").read_text() == '{"new": 1}'
    assert [path.name for path in tmp_path.iterdir()] == ["infra"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    folder.write(tmp_path / "new" / "deep", {"a": "1"})
    (tmp_path / "empty").mkdir()
    folder.write(tmp_path / "empty", {"a": "1"})
    assert (tmp_path / "new/deep/a").read_text() == (tmp_path / "empty/a").read_text() == "1"


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text("")
    with pytest.raises(ParameterError, match="holds no earlier export"):
        folder.write(tmp_path, {"a": "1"})
    assert [path.name for path in tmp_path.iterdir()] == ["main.tf"]


def test_an_export_that_was_edited_is_refused_by_the_files_name(tmp_path: Path) -> None:
    folder.write(tmp_path / "x", {"a.tf.json": "{}", "b.tf.json": "{}"})
    (tmp_path / "x" / "b.tf.json").write_text("{ }")
    with pytest.raises(ParameterError, match=r"b\.tf\.json is no longer"):
        folder.write(tmp_path / "x", {"a.tf.json": "{}"})


# --- from a journal and a running control plane -----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "local.01.jsonl"


def exported(plane: Any, path: Path, directory: Path) -> tuple[Export, dict[str, Any], str]:
    """An export of one journal: what it says of itself, every resource and import in it, and its page."""
    done = export_journals(directory, settings.load("local"), {"01": path}, plane.client())
    content: dict[str, Any] = {"resource": {}, "import": []}
    for file in directory.glob("*.tf.json"):
        part = json.loads(file.read_text())
        content["resource"] |= part.get("resource", {})
        content["import"] += part.get("import", [])
    return done, content, (directory / "README.md").read_text()


def run(plane: Any, project: str, path: Path, **differs: Any) -> None:
    client, journal = plane.client(), Journal(path)
    apply(client, make_plan(client, stack(project, **differs), journal.applied()), journal, "run-1")


def test_what_was_applied_is_exported_under_the_names_that_it_has(
    plane: Any, project: str, path: Path, tmp_path: Path
) -> None:
    run(plane, project, path)
    done, content, page = exported(plane, path, tmp_path / "out")
    addresses = [f"{type_}.{name}" for type_, named_ in content["resource"].items() for name in named_]
    assert sorted(one["to"] for one in content["import"]) == sorted(addresses)
    assert (done.resources, done.incomplete) == (len(addresses), 0)
    channel = next(one for one in stack(project) if one.kind == "notification channel")
    live = access.read(plane.client(), channel)
    assert live is not None
    ids = {one["to"]: one["id"] for one in content["import"]}
    assert ids["google_monitoring_notification_channel.operators"] == live.name
    alert = content["resource"]["google_monitoring_alert_policy"]["api_too_slow"]
    assert alert["notification_channels"] == [live.name]
    assert ids["google_service_networking_connection.servicenetworking_" + project.replace("-", "_")] == (
        f"projects/{project}/global/networks/main:servicenetworking.googleapis.com"
    )
    assert "## Different now" not in page
    assert "run-1" in page


def test_what_drifted_and_what_is_gone_is_said(plane: Any, project: str, path: Path, tmp_path: Path) -> None:
    run(plane, project, path)
    client = plane.client()
    by_kind = {one.kind: one for one in stack(project)}
    for kind, act in (("firewall", "delete"), ("log bucket", "update")):
        wanted = by_kind[kind]
        live = access.read(client, wanted)
        assert live is not None
        if act == "delete":
            access.delete(client, wanted, live, "")
        else:
            access.update(client, replace(wanted, body={"retentionDays": 7}), live, ["retentionDays"], "")
    _, content, page = exported(plane, path, tmp_path / "out")
    assert "google_compute_firewall" not in content["resource"]
    assert f"- firewall:projects/{project}/global/iap\n" in page.partition("## Applied once and gone")[2]
    assert "retentionDays: 7 → 90" in page.partition("## Different now")[2]


def test_after_a_rollback_the_whole_resource_is_exported(plane: Any, project: str, path: Path, tmp_path: Path) -> None:
    """A rollback's journal entry has only the fields that it brought back."""
    run(plane, project, path)
    client, journal = plane.client(), Journal(path)
    plan = make_plan(client, stack(project, threshold=200.0), journal.applied())
    apply(client, plan, journal, "run-2")
    apply(client, rollback_plan(client, journal, "run-2"), journal, "run-3", undoing=True)
    done, content, _ = exported(plane, path, tmp_path / "out")
    assert done.incomplete == 0
    alert = content["resource"]["google_monitoring_alert_policy"]["api_too_slow"]
    assert alert["combiner"] == "OR"
    assert alert["conditions"][0]["condition_threshold"]["threshold_value"] == 100.0


def test_a_run_service_is_exported_as_it_serves_now(plane: Any, path: Path, tmp_path: Path, project: str) -> None:
    client, journal = plane.client(), Journal(path)
    first = [one for one in stack(project) if one.kind in ("project", "billing", "service")]
    body = {"description": "API", "template": {"containers": [{"image": "image:1"}]}}
    on = Resource("service", f"projects/{project}", "run.googleapis.com", {}, tuple(one.key for one in first))
    service = Resource("run service", f"projects/{project}/locations/us-central1", "api", body, (on.key,))
    apply(client, make_plan(client, [*first, on, service]), journal, "run-1")
    changed = {"template": {"containers": [{"image": "image:2"}]}}
    call, at = "run.projects.locations.services.patch", f"{service.parent}/services/api"
    client.finish("run.v2", call, client.call("run.v2", call, at, body=changed, query={"updateMask": "template"}), 30)
    _, content, page = exported(plane, path, tmp_path / "out")
    (found,) = content["resource"]["google_cloud_run_v2_service"].values()
    assert found["template"]["containers"][0]["image"] == "image:2"
    assert "Not said here" not in found.get("//", "")
    assert "## Different now" not in page


def test_changes_without_an_end_are_refused(plane: Any, path: Path, tmp_path: Path) -> None:
    Journal(path).begin("run-1", Verb.CREATE, NETWORK, None)
    with pytest.raises(GateFailed, match="run the phase again"):
        exported(plane, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_journal_there_is_nothing_to_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path))
    with pytest.raises(ParameterError, match="no journal of phase 01"):
        export_terraform(tmp_path / "out", "local", "01")


# --- Terraform itself -------------------------------------------------------------------------------------------------

TERRAFORM = shutil.which("terraform")


@pytest.mark.skipif(TERRAFORM is None, reason="no terraform binary on the path: its own parser is not asked")
def test_terraform_reads_the_whole_export(tmp_path: Path) -> None:
    """``terraform providers`` decodes every block without the provider, which cannot be had offline."""
    folder.write(tmp_path / "x", render(CONVERTED, ORIGIN))
    done = _terraform(tmp_path / "x", "providers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "provider[registry.terraform.io/hashicorp/google] ~> 8.0" in done.stdout
    assert _terraform(tmp_path / "x", "fmt", "-check").returncode == 0


@pytest.mark.skipif(TERRAFORM is None, reason="no terraform binary on the path: its own parser is not asked")
def test_terraform_finds_what_is_wrong_with_a_broken_export(tmp_path: Path) -> None:
    files = render(CONVERTED, ORIGIN)
    files["network.tf.json"] = files["network.tf.json"].replace('"to": "google_compute_network.', '"to": "9 ', 1)
    folder.write(tmp_path / "x", files)
    assert _terraform(tmp_path / "x", "providers").returncode != 0


def _terraform(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    return subprocess.run(
        [str(TERRAFORM), *arguments, *(["-no-color"] if arguments[0] == "fmt" else [])],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
