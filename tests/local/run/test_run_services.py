"""Services on the local Cloud Run: roll-outs, traffic, instances, what a container is given, restarts."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
from google.cloud import run_v2
from run_planes import ACCOUNT, LOCATION, PROJECT, REGION, RunPlanes, latest, soon, to

from orchestra_lib.local.run import program


class Load:
    """Requests one after the other from several threads, as long as the block lasts; every answer is kept."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.answers: list[tuple[float, int, str]] = []
        """When it was sent, the status, and the revision that answered."""

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not self._stop.is_set():
                sent = time.time()
                answer = client.get(self._url)
                self.answers.append(
                    (sent, answer.status_code, answer.json()["K_REVISION"] if answer.is_success else "")
                )


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def revisions(planes: RunPlanes, url: str, requests: int) -> list[str]:
    return [planes.http.get(url).json()["K_REVISION"] for _ in range(requests)]


def test_a_service_of_googles_own_client_answers_at_its_address(planes, image, new_name):
    client = planes.typed()
    container = run_v2.Container(
        image=image,
        command=["sh", "-c"],
        args=['exec uvicorn service.app:app --port "$PORT"'],
        env=[run_v2.EnvVar(name="COLOUR", value="red")],
    )
    wanted = run_v2.Service(
        template=run_v2.RevisionTemplate(containers=[container], service_account=ACCOUNT), invoker_iam_disabled=True
    )
    made = client.create_service(parent=LOCATION, service_id=new_name, service=wanted).result(timeout=20)
    told = planes.http.get(made.uri).json()
    assert (told["K_SERVICE"], told["COLOUR"]) == (new_name, "red")
    assert told["K_REVISION"] == made.latest_ready_revision.rsplit("/", 1)[1]
    assert told["cwd"].endswith("/root/srv")
    client.delete_service(name=made.name).result(timeout=20)
    soon(lambda: not listened_at(made.uri))


def listened_at(uri: str) -> bool:
    try:
        httpx.get(uri, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def test_percentages_and_tags_hold_and_move_at_once_without_a_lost_request(planes, image, new_name):
    service = planes.service(new_name, template=planes.template(image), invokerIamDisabled=True)
    blue = service.latest
    service.patch(
        template=planes.template(image, env={"COLOUR": "green"}, scaling={"minInstanceCount": 1}),
        traffic=[to(blue, 100, "blue"), latest(0, "green")],
    )
    green = service.latest
    tags = {status["tag"]: status["uri"] for status in service.body["trafficStatuses"]}
    assert planes.http.get(tags["green"]).json()["COLOUR"] == "green"
    assert set(revisions(planes, tags["blue"], 5)) == {blue}
    assert set(revisions(planes, service.uri, 20)) == {blue}

    service.patch(traffic=[to(blue, 75), to(green, 25)])
    drawn = revisions(planes, service.uri, 400)
    # Five standard deviations: less often than once in a million runs.
    assert abs(drawn.count(green) - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)

    with Load(service.uri) as load:
        time.sleep(0.2)
        service.patch(traffic=[to(green, 100)])
        forth = time.time()
        time.sleep(0.2)
        asked = time.time()
        service.patch(traffic=[to(blue, 100)])
        back = time.time()
        time.sleep(0.2)
    assert {status for _, status, _ in load.answers} == {200}
    assert {revision for sent, _, revision in load.answers if forth < sent < asked} == {green}
    assert {revision for sent, _, revision in load.answers if sent > back} == {blue}
    assert back - asked < 1
    assert service.told(blue)["failed"] == service.told(green)["failed"] == 0


def test_a_revision_that_does_not_become_ready_leaves_traffic_alone(planes, image, new_name):
    service = planes.service(new_name, template=planes.template(image), invokerIamDisabled=True)
    good = service.latest
    probe = {"periodSeconds": 20, "timeoutSeconds": 20, "failureThreshold": 1, "httpGet": {"path": "/ready"}}
    bad = planes.template(image, env={"READY_STATUS": "503"}, container={"startupProbe": probe})
    failed = planes.ended("run/v2", service.begin(template=bad))
    assert "GET /ready was answered 503 (1 of 1 attempts)" in failed["error"]["message"]
    assert failed["metadata"]["terminalCondition"]["state"] == "CONDITION_FAILED"
    assert service.latest == good
    assert set(revisions(planes, service.uri, 5)) == {good}
    created = service.body["latestCreatedRevision"]
    condition = planes.call("GET", f"run/v2/{created}").body["conditions"][0]
    assert condition["state"] == "CONDITION_FAILED"
    # Traffic can still be moved, and what failed gets none of it.
    service.patch(traffic=[to(good, 100, "good")])
    assert set(revisions(planes, service.uri, 3)) == {good}
    assert service.latest == good


def test_a_first_revision_that_ends_at_its_start_says_why_and_the_service_stays(planes, image, new_name):
    body = {"template": planes.template(image, env={"REFUSES_TO_START": "1"})}
    failed = planes.ended("run/v2", planes.call("POST", f"run/v2/{LOCATION}/services?serviceId={new_name}", body))
    assert "is not ready and cannot serve traffic. Container called exit(3)." in failed["error"]["message"]
    assert "no database, no service" in failed["error"]["message"]
    service = planes.call("GET", f"run/v2/{LOCATION}/services/{new_name}").body
    assert service["terminalCondition"]["state"] == "CONDITION_FAILED"
    assert "exit(3)" in service["terminalCondition"]["message"]
    assert "latestReadyRevision" not in service


def test_an_image_that_is_not_in_the_registry_is_not_deployed(planes, new_name):
    body = {"template": planes.template(f"{REGION}-docker.pkg.dev/{PROJECT}/images/none:v1")}
    failed = planes.ended("run/v2", planes.call("POST", f"run/v2/{LOCATION}/services?serviceId={new_name}", body))
    assert "images/none:v1' not found" in failed["error"]["message"]


def test_a_request_to_a_service_without_instances_starts_one(planes, image, new_name):
    service = planes.service(new_name, template=planes.template(image), invokerIamDisabled=True)
    pid = planes.http.get(service.uri).json()["pid"]
    plane = program.status(planes.directory)
    headers = {"Authorization": f"Bearer {planes.token}"}
    ended = planes.http.post(f"{plane.endpoint}/scale-down", json={"service": service.name}, headers=headers).json()
    assert ended == {"ended": 1}
    soon(lambda: not alive(pid))
    assert service.told(service.latest)["instances"] == []
    assert planes.http.get(service.uri).json()["pid"] != pid
    told = service.told(service.latest)
    assert (told["started"], told["cold_starts"], len(told["startup_seconds"])) == (2, 1, 2)


def test_an_instance_takes_as_many_requests_at_once_as_it_may(planes, image, new_name):
    template = planes.template(image, scaling={"maxInstanceCount": 1}, maxInstanceRequestConcurrency=2)
    service = planes.service(new_name, template=template, invokerIamDisabled=True)
    url = f"{service.uri}/sleep?seconds=0.2"
    begun = time.monotonic()
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: planes.http.get(url).status_code, range(6)))
    assert answers == [200] * 6
    assert time.monotonic() - begun >= 0.6
    assert service.told(service.latest)["started"] == 1


def test_an_instance_that_is_killed_fails_what_it_was_at_and_is_replaced(planes, image, new_name):
    template = planes.template(image, scaling={"minInstanceCount": 1})
    service = planes.service(new_name, template=template, invokerIamDisabled=True)
    pid = planes.http.get(service.uri).json()["pid"]
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(planes.http.get, f"{service.uri}/sleep?seconds=20") for _ in range(2)]
        soon(lambda: service.told(service.latest)["in_flight"] == 2)
        os.kill(pid, signal.SIGKILL)
        assert [one.result().status_code for one in waiting] == [503, 503]
    soon(lambda: service.told(service.latest)["instances"])
    assert planes.http.get(service.uri).json()["pid"] != pid
    told = service.told(service.latest)
    assert (told["lost"], told["failed"], told["cold_starts"]) == (1, 2, 0)


def test_a_request_that_takes_too_long_is_ended(planes, image, new_name):
    service = planes.service(new_name, template=planes.template(image, timeout="1s"), invokerIamDisabled=True)
    assert planes.http.get(f"{service.uri}/sleep?seconds=20").status_code == 504
    assert planes.http.get(service.uri).status_code == 200


def test_a_container_is_asked_to_stop_when_its_service_goes(planes, image, new_name, tmp_path):
    mark = tmp_path / "mark"
    service = planes.service(new_name, template=planes.template(image, env={"MARK": str(mark)}))
    pid = service.told(service.latest)["instances"][0]["pid"]
    planes.done("run/v2", planes.call("DELETE", f"run/v2/{service.name}"))
    soon(lambda: mark.exists() and not alive(pid))
    assert f"{pid} was asked to stop" in mark.read_text()


def test_a_container_has_its_variables_its_secrets_and_its_accounts_tokens(planes, image, new_name):
    secrets = f"secretmanager/v1/projects/{PROJECT}/secrets"
    planes.call("POST", f"{secrets}?secretId=word", {"replication": {"automatic": {}}})
    value = base64.b64encode(b"open sesame").decode()
    planes.call("POST", f"{secrets}/word:addVersion", {"payload": {"data": value}})
    template = planes.template(image, env={"GREETING": "hello"})
    reference = {"secretKeyRef": {"secret": "word", "version": "latest"}}
    template["containers"][0]["env"].append({"name": "SECRET", "valueSource": reference})
    service = planes.service(new_name, template=template, invokerIamDisabled=True)
    told = planes.http.get(service.uri).json()
    assert (told["GREETING"], told["SECRET"], told["COLOUR"]) == ("hello", "open sesame", "grey")
    found = planes.http.get(f"{service.uri}/identity", params={"audience": "https://example.com"}).json()
    assert (found["email"], found["project"]) == (ACCOUNT, PROJECT)
    headers = {"Authorization": f"Bearer {found['access_token']}"}
    assert planes.http.get(f"{planes.url}/_local/caller", headers=headers).json() == {"email": ACCOUNT}


def test_a_data_plane_that_was_killed_serves_the_same_addresses_again(planes, plain):
    before, uri = planes.http.get(plain.uri).json(), plain.uri
    traffic = plain.body["trafficStatuses"]
    planes.kill()
    assert alive(before["pid"])
    planes.want()
    after = planes.http.get(uri).json()
    assert after["K_REVISION"] == before["K_REVISION"]
    assert not alive(before["pid"])
    assert plain.body["trafficStatuses"] == traffic


def test_the_command_says_where_the_data_plane_is_and_what_it_serves(planes, plain):
    def local(*arguments):
        environment = {**os.environ, "ORCHESTRA_STATE_DIR": str(planes.directory.parent.parent)}
        command = [sys.executable, "-m", "orchestra_lib", "local", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    plane = program.status(planes.directory)
    assert json.loads(local("status", "--json"))["run"] == {"endpoint": plane.endpoint, "pid": plane.pid}
    told = local("services")
    assert f"{plain.name}: {plain.uri}" in told
    assert f"{plain.latest}: 100 %, 1 instances" in told
    assert planes.http.get(f"{plane.endpoint}/services").status_code == 401


def test_a_data_plane_that_was_stopped_in_order_takes_its_instances_along(planes, plain):
    pid, uri = planes.http.get(plain.uri).json()["pid"], plain.uri
    assert program.down(planes.directory) == ("run",)
    assert not alive(pid)
    assert not listened_at(uri)
    planes.want()
    assert planes.http.get(uri).status_code == 200
