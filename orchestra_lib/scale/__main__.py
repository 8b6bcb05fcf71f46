"""Runs one pipeline, in a Python that has Apache Beam; ``attempts`` starts it, or a person does.

    python -m orchestra_lib.scale transfer SPEC [BEAM OPTIONS]
    python -m orchestra_lib.scale verify SPEC --report PREFIX [BEAM OPTIONS]
    python -m orchestra_lib.scale embed SPEC [BEAM OPTIONS]

Without ``--runner`` the pipeline runs here, in worker processes (see ``forked_workers``); exit code 75 says that one of
them died. The last line of output is JSON: the pipeline's metrics, and with verify the numbers of the ranges that were
made, and what was found in each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from orchestra_lib.errors import OrchestraError, ParameterError
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.scale.backfill import missing_ranges_of
from orchestra_lib.scale.extra import require_beam
from orchestra_lib.scale.runner import require_reachable_report, runner_of
from orchestra_lib.scale.size_ranges import ranges_of
from orchestra_lib.scale.spec import EmbeddingSpec, TransferSpec, read_embedding_spec, read_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", choices=("transfer", "verify", "embed"))
    parser.add_argument("spec", type=Path)
    parser.add_argument("--report", help="where verify writes what it found: a prefix of files, or gs://…")
    parser.add_argument(
        "--held", action="store_true", help="come up, and begin once a line of input says that the ranges are noted"
    )
    asked, flags = parser.parse_known_args(arguments)
    if asked.pipeline == "verify" and not asked.report:
        parser.error("verify needs --report")
    try:
        require_beam()
        if asked.pipeline == "verify":
            require_reachable_report(asked.report, flags)
        spec = read_embedding_spec(asked.spec) if asked.pipeline == "embed" else read_spec(asked.spec)
        print(json.dumps(_run(spec, asked, flags)))
    except OrchestraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run(spec: TransferSpec | EmbeddingSpec, asked: argparse.Namespace, flags: Sequence[str]) -> dict[str, Any]:
    """Run one pipeline to its end; returns its metrics."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from orchestra_lib.scale.forked_workers import fork_workers
    from orchestra_lib.scale.pipelines import NAMESPACE, read_report, transfer_pipeline, verify_pipeline

    if isinstance(spec, EmbeddingSpec):
        from orchestra_lib.scale.embedding import begin_embedding
        from orchestra_lib.scale.embedding_pipeline import embedding_pipeline

    options = PipelineOptions(_flags(spec, flags))
    runner = options.view_as(StandardOptions).runner
    if runner is None:
        # By name: "DirectRunner" would first look for Prism, a program that it downloads.
        runner = FnApiRunner()
        fork_workers(spec.workers)
    if asked.held and not sys.stdin.readline():
        raise ParameterError("--held, and no line of input came to say that the ranges are noted: nothing was done")
    pipeline = beam.Pipeline(runner=runner, options=options)
    # A name of its own: under a prefix that is kept, the findings of an earlier verification are not this one's.
    report, checked = f"{asked.report}-{uuid.uuid4().hex}", tuple[KeyRange, ...]()
    if isinstance(spec, EmbeddingSpec):
        embedding_pipeline(pipeline, spec, begin_embedding(spec))
    elif asked.report is None:
        transfer_pipeline(pipeline, spec, missing_ranges_of(spec))
    else:
        checked = ranges_of(spec)
        verify_pipeline(pipeline, spec, checked, report)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))
    if asked.report is None:
        return {"metrics": _metrics(found)}
    lines = [json.loads(line) for line in read_report(report)]
    return {"metrics": _metrics(found), "made": [one.number for one in checked], "ranges": lines}


def _flags(spec: TransferSpec | EmbeddingSpec, flags: Sequence[str]) -> list[str]:
    """Beam's options; without a runner, ours for this machine."""
    here = ["--direct_running_mode=multi_processing", f"--direct_num_workers={spec.workers}"]
    return [*here, *flags] if runner_of(flags) is None else [*flags]


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    counters = {one.key.metric.name: one.result for one in found["counters"]}
    spread = {
        one.key.metric.name: {"count": one.result.count, "mean": one.result.mean, "max": one.result.max}
        for one in found["distributions"]
    }
    return counters | spread


def _end(exit_code: int) -> NoReturn:
    """End at once: Beam's threads and modules take a third of a second to go, and have nothing left to do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    _end(main())
