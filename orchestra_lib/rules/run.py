"""Rules of the API's service on Cloud Run, and of the gateway before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra_lib.rules import known
from orchestra_lib.rules.kinds import FLAG, MAPPINGS, NETWORK, NUMBER, QUANTITY, TEXT, TEXTS, WHOLE
from orchestra_lib.rules.rule import Level, Rule, Values, in_document, may, needs, on_page, used

_RESOURCES = in_document(known.RUN, "ResourceRequirements.limits")
_CPUS_BEYOND_THE_DOCUMENT = (6,)  # https://cloud.google.com/run/docs/configuring/services/cpu
_GIB = 1 << 30
_MEMORY_OF_MORE_CPUS = {6: 4, 8: 4}  # GiB: https://cloud.google.com/run/docs/configuring/services/memory-limits
_MOST_CONCURRENCY = 1_000
_DEFAULT_OF_GCLOUD_PER_CPU = 80
_LONGEST_PREFIX = 26
_ROOMY_PREFIX = 24
_SHARE_OF_CONNECTIONS = 0.8
_PERCENT = 100
_CONCURRENCY = on_page("https://cloud.google.com/run/docs/about-concurrency")
_EGRESS = on_page("https://cloud.google.com/run/docs/configuring/vpc-direct-vpc")
_ROLLBACK = on_page("https://cloud.google.com/run/docs/rollouts-rollbacks-traffic-migration")


def _cpus() -> tuple[int, ...]:
    return tuple(sorted((*known.run_cpus(), *_CPUS_BEYOND_THE_DOCUMENT)))


def _cpu_fits(v: Values) -> bool:
    return v.cpu in _cpus() or bool(0 < v.cpu < 1 and v.concurrency == 1)


def _nearest_cpu(v: Values) -> Mapping[str, Any]:
    if 0 < v.cpu < 1:
        return {"api.concurrency": 1}
    return {"api.cpu": next((cpu for cpu in _cpus() if cpu >= v.cpu), _cpus()[-1])}


def _least_memory_gib(cpu: float) -> int:
    cpus, gib = known.run_memory_minimum()
    if cpu == cpus:
        return gib
    return next((least for size, least in _MEMORY_OF_MORE_CPUS.items() if cpu == size), 0)


def _probe(name: str, field: str, least: int, what: str) -> Rule:
    place = f"api.startup_probe.{name}"
    return Rule(
        "R-RN-05",
        Level.FAIL,
        f"startup probe: {what} within the range",
        {"seconds": used(place, WHOLE)},
        lambda v: least <= v.seconds <= known.startup_probe_maximum_seconds(field),
        lambda v: f"{v.seconds} s: from {least} to {known.startup_probe_maximum_seconds(field)} are possible",
        in_document(known.RUN, f"Probe.{field}"),
        lambda v: {place: min(max(v.seconds, least), known.startup_probe_maximum_seconds(field))},
    )


def _shorter_timeout(v: Values) -> Mapping[str, Any]:
    if v.period > 1:
        return {"api.startup_probe.timeout_seconds": v.period - 1}
    return {"api.startup_probe.timeout_seconds": 1, "api.startup_probe.period_seconds": 2}


def _utilization(name: str, field: str) -> Rule:
    place = f"api.scaling.{name}"

    def holds(v: Values) -> bool:
        least, most = known.scaling_utilization(field)
        return bool(v.value == 0 or least <= v.value <= most)

    def nearest(v: Values) -> Mapping[str, Any]:
        least, most = known.scaling_utilization(field)
        return {place: min(max(v.value, least), most)}

    return Rule(
        "R-RN-08",
        Level.FAIL,
        f"scaling by {name.replace('_', ' ')} within the range",
        {"value": used(place, NUMBER)},
        holds,
        lambda v: f"{v.value:g}: 0, or from {{0[0]}} to {{0[1]}}".format(known.scaling_utilization(field)),
        in_document(known.RUN, f"RevisionScaling.{field}"),
        nearest,
    )


def _percents(v: Values) -> list[Any]:
    return [target.get("percent") or 0 for target in v.traffic]


def _is_whole_traffic(v: Values) -> bool:
    percents = _percents(v)
    whole = all(isinstance(percent, int) and not isinstance(percent, bool) and percent >= 0 for percent in percents)
    return whole and sum(percents) == _PERCENT


def connections_fit(v: Values) -> bool:
    """Whether all instances together leave a fifth of the server's connections to others."""
    return bool(v.instances * v.each <= _SHARE_OF_CONNECTIONS * v.most)


def _fewer_connections(v: Values) -> Mapping[str, Any]:
    each = int(_SHARE_OF_CONNECTIONS * v.most) // v.instances if v.instances > 0 else 0
    return {"api.connections_per_instance": each} if each >= 1 else {}


def _private(v: Values) -> Mapping[str, Any]:
    return {"api.invokers": [who for who in v.invokers if who != "allUsers"], "api.invoker_iam_disabled": True}


def _larger(v: Values) -> Mapping[str, Any]:
    return {"network.primary_subnet": str(v.subnet.supernet(new_prefix=_ROOMY_PREFIX))}


RULES = (
    Rule(
        "R-RN-01",
        Level.FAIL,
        "there are so many CPUs, and less than one answers one request at a time",
        {"cpu": needs("api.cpu", NUMBER), "concurrency": may("api.concurrency", WHOLE)},
        _cpu_fits,
        lambda v: (
            f"{v.cpu:g} CPUs: {', '.join(map(str, _cpus()))} are possible, or less than one with a concurrency of 1"
        ),
        _RESOURCES,
        _nearest_cpu,
    ),
    Rule(
        "R-RN-02",
        Level.FAIL,
        "there is as much memory as the CPUs need",
        {"memory": needs("api.memory", QUANTITY), "cpu": needs("api.cpu", NUMBER)},
        lambda v: v.memory.size_bytes >= _least_memory_gib(v.cpu) * _GIB,
        lambda v: (
            f"{v.memory} for {v.cpu:g} CPUs: at least {_least_memory_gib(v.cpu)}Gi "
            f"({_least_memory_gib(v.cpu) * _GIB:,} bytes) are needed"
        ),
        _RESOURCES,
        lambda v: {"api.memory": f"{_least_memory_gib(v.cpu)}Gi"},
    ),
    Rule(
        "R-RN-03",
        Level.FAIL,
        "an instance may answer so many requests at once",
        {"concurrency": needs("api.concurrency", WHOLE)},
        lambda v: 1 <= v.concurrency <= _MOST_CONCURRENCY,
        lambda v: f"{v.concurrency}: from 1 to {_MOST_CONCURRENCY} are possible",
        _CONCURRENCY,
        lambda v: {"api.concurrency": min(max(v.concurrency, 1), _MOST_CONCURRENCY)},
    ),
    Rule(
        "R-RN-03",
        Level.WARN,
        "what is called the default concurrency is it",
        {"claimed": used("api.default_concurrency", WHOLE), "cpu": may("api.cpu", NUMBER, 1)},
        lambda v: v.claimed == known.run_default_concurrency(),
        lambda v: (
            f"a default of {v.claimed}: the API's is {known.run_default_concurrency()}, gcloud's "
            f"{_DEFAULT_OF_GCLOUD_PER_CPU} for each CPU, so {_DEFAULT_OF_GCLOUD_PER_CPU * max(v.cpu, 1):g} here"
        ),
        in_document(known.RUN, "RevisionTemplate.maxInstanceRequestConcurrency"),
        lambda _: {"api.default_concurrency": known.run_default_concurrency()},
    ),
    Rule(
        "R-RN-04",
        Level.FAIL,
        "whether the CPU rests between requests is said",
        {"idle": may("api.cpu_idle", FLAG), "cpu": needs("api.cpu", NUMBER)},
        lambda v: v.idle is not None,
        lambda _: (
            "not stated: where CPU and memory are set, the API takes it for false, which costs about 5 times as much"
        ),
        in_document(known.RUN, "ResourceRequirements.cpuIdle"),
        lambda _: {"api.cpu_idle": False},
    ),
    Rule(
        "R-RN-04",
        Level.FAIL,
        "work in the background has a CPU",
        {"idle": needs("api.cpu_idle", FLAG), "background": needs("api.background_work", FLAG)},
        lambda v: not (v.idle and v.background),
        lambda _: "the CPU rests between requests, and so does the work that is to go on in the background",
        in_document(known.RUN, "ResourceRequirements.cpuIdle"),
        lambda _: {"api.cpu_idle": False},
    ),
    _probe("initial_delay_seconds", "initialDelaySeconds", 0, "the delay"),
    _probe("period_seconds", "periodSeconds", 1, "the period"),
    Rule(
        "R-RN-05",
        Level.FAIL,
        "a startup probe has ended before the next begins",
        {
            "timeout": used("api.startup_probe.timeout_seconds", WHOLE),
            "period": may("api.startup_probe.period_seconds", WHOLE, 10),
        },
        lambda v: 1 <= v.timeout < v.period,
        lambda v: f"a time-out of {v.timeout} s every {v.period} s: it has to be at least 1 and less than the period",
        in_document(known.RUN, "Probe.timeoutSeconds"),
        _shorter_timeout,
    ),
    Rule(
        "R-RN-06",
        Level.FAIL,
        "the subnet has room for the instances",
        {"subnet": needs("network.primary_subnet", NETWORK)},
        lambda v: v.subnet.prefixlen <= _LONGEST_PREFIX,
        lambda v: f"{v.subnet}: direct egress wants a /{_LONGEST_PREFIX} or larger, about two addresses an instance",
        _EGRESS,
        _larger,
    ),
    Rule(
        "R-RN-06",
        Level.WARN,
        "an instance is ready when it reaches the database",
        {"reaches": needs("api.startup_probe.opens_database", FLAG)},
        lambda v: v.reaches,
        lambda _: "the first connections through direct egress may take a minute: requests would wait for them",
        _EGRESS,
        lambda _: {"api.startup_probe.opens_database": True},
    ),
    Rule(
        "R-RN-06",
        Level.FAIL,
        "an instance has one network interface",
        {"interfaces": used("api.network_interfaces", WHOLE)},
        lambda v: v.interfaces <= 1,
        lambda v: f"{v.interfaces} interfaces: one is possible",
        in_document(known.RUN, "VpcAccess.networkInterfaces"),
        lambda _: {"api.network_interfaces": 1},
    ),
    Rule(
        "R-RN-07",
        Level.FAIL,
        "the traffic adds up",
        {"traffic": used("api.traffic", MAPPINGS)},
        _is_whole_traffic,
        lambda v: f"the targets have {', '.join(map(str, _percents(v)))} percent: whole numbers that make {_PERCENT}",
        in_document(known.RUN, "TrafficTarget.percent"),
    ),
    Rule(
        "R-RN-07",
        Level.WARN,
        "the revision to go back to stays warm",
        {"instances": needs("api.previous_revision_min_instances", WHOLE)},
        lambda v: v.instances >= 1,
        lambda v: f"{v.instances} instances of the previous revision: going back begins with a cold start",
        _ROLLBACK,
        lambda _: {"api.previous_revision_min_instances": 1},
    ),
    _utilization("cpu_utilization", "cpuUtilization"),
    _utilization("concurrency_utilization", "concurrencyUtilization"),
    Rule(
        "R-RN-08",
        Level.FAIL,
        "something makes the service scale",
        {
            "cpu": used("api.scaling.cpu_utilization", NUMBER),
            "concurrency": used("api.scaling.concurrency_utilization", NUMBER),
        },
        lambda v: v.cpu != 0 or v.concurrency != 0,
        lambda _: "scaling by CPU and by concurrency are both off: one of them has to be on",
        in_document(known.RUN, "RevisionScaling"),
        lambda _: {"api.scaling.cpu_utilization": 0.6},
    ),
    Rule(
        "R-RN-09",
        Level.FAIL,
        "the service runs as an account of its own",
        {"account": needs("api.service_account", TEXT)},
        lambda v: bool(v.account) and not v.account.endswith("-compute@developer.gserviceaccount.com"),
        lambda v: f"{v.account or 'none'}: that is Compute Engine's default account, which many things share",
        in_document(known.RUN, "RevisionTemplate.serviceAccount"),
    ),
    Rule(
        "R-RN-10",
        Level.FAIL,
        "nobody needs a binding for allUsers",
        {"invokers": used("api.invokers", TEXTS)},
        lambda v: "allUsers" not in v.invokers,
        lambda _: "allUsers: organisations that restrict domains refuse the binding; switch the check off instead",
        in_document(known.RUN, "Service.invokerIamDisabled"),
        _private,
    ),
    Rule(
        "R-RN-11",
        Level.FAIL,
        "the database has connections for all instances",
        {
            "each": needs("api.connections_per_instance", WHOLE),
            "instances": needs("api.max_instances", WHOLE),
            "most": needs("memory.alloydb.max_connections", WHOLE),
        },
        connections_fit,
        lambda v: f"{v.instances} instances with {v.each} connections each: four fifths of {v.most} may be used",
        on_page("https://cloud.google.com/alloydb/docs/reference/database-flags"),
        _fewer_connections,
    ),
    Rule(
        "R-RN-12",
        Level.WARN,
        "nobody is promised that nothing starts cold",
        {"promise": used("api.cold_starts", TEXT)},
        lambda v: v.promise.lower() not in ("none", "eliminated", "no"),
        lambda v: (
            f"{v.promise}: warm instances cover the first; further ones, new revisions and deployments start cold"
        ),
        on_page("https://cloud.google.com/run/docs/configuring/min-instances"),
        lambda _: {"api.cold_starts": "fewer"},
    ),
)
