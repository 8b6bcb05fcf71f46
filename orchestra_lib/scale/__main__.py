"""Runs one pipeline, in a Python that has Apache Beam; ``attempts`` starts it, or a person does.

    python -m orchestra_lib.scale transfer SPEC [BEAM OPTIONS]
    python -m orchestra_lib.scale verify SPEC --report PREFIX [BEAM OPTIONS]
    python -m orchestra_lib.scale embed SPEC [BEAM OPTIONS]

Without ``--runner`` the pipeline runs here, in worker processes of Beam's own FnApiRunner. That one waits for ever when
a worker dies; we end instead, with exit code 75, and ``attempts`` starts what is missing anew, as Dataflow does with a
bundle. The last line of output is JSON: the pipeline's metrics, and with verify what was found in each range.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestra_lib.errors import OrchestraError
from orchestra_lib.scale.backfill import missing_ranges_of
from orchestra_lib.scale.extra import require_beam
from orchestra_lib.scale.size_ranges import ranges_of
from orchestra_lib.scale.spec import EmbeddingSpec, TransferSpec, read_embedding_spec, read_spec

WORKER_DIED = 75
"""EX_TEMPFAIL: what is missing can be done by another attempt."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", choices=("transfer", "verify", "embed"))
    parser.add_argument("spec", type=Path)
    parser.add_argument("--report", help="where verify writes what it found: a prefix of files, or gs://…")
    asked, flags = parser.parse_known_args(arguments)
    if asked.pipeline == "verify" and not asked.report:
        parser.error("verify needs --report")
    try:
        require_beam()
        spec = read_embedding_spec(asked.spec) if asked.pipeline == "embed" else read_spec(asked.spec)
        print(json.dumps(_run(spec, asked.report, flags)))
    except OrchestraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _run(spec: TransferSpec | EmbeddingSpec, report: str | None, flags: Sequence[str]) -> dict[str, Any]:
    """Run one pipeline to its end; returns its metrics."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from orchestra_lib.scale.pipelines import NAMESPACE, read_report, transfer_pipeline, verify_pipeline

    options = PipelineOptions(_flags(spec, flags))
    # FnApiRunner by name: "DirectRunner" would first look for Prism, a program that it downloads.
    runner = options.view_as(StandardOptions).runner or FnApiRunner()
    pipeline = beam.Pipeline(runner=runner, options=options)
    if isinstance(spec, EmbeddingSpec):
        from orchestra_lib.scale.embedding import begin_embedding
        from orchestra_lib.scale.embedding_pipeline import embedding_pipeline

        embedding_pipeline(pipeline, spec, begin_embedding(spec))
    elif report is None:
        transfer_pipeline(pipeline, spec, missing_ranges_of(spec))
    else:
        verify_pipeline(pipeline, spec, ranges_of(spec), report)
    threading.excepthook = _end_with_a_worker
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))
    ranges = {} if report is None else {"ranges": [json.loads(line) for line in read_report(report)]}
    return {"metrics": _metrics(found), **ranges}


def _flags(spec: TransferSpec | EmbeddingSpec, flags: Sequence[str]) -> list[str]:
    """Beam's options; without a runner, ours for this machine."""
    here = ["--direct_running_mode=multi_processing", f"--direct_num_workers={spec.workers}"]
    named = any(flag.startswith("--runner") for flag in flags)
    return [*flags] if named else [*here, *flags]


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    counters = {one.key.metric.name: one.result for one in found["counters"]}
    spread = {
        one.key.metric.name: {"count": one.result.count, "mean": one.result.mean, "max": one.result.max}
        for one in found["distributions"]
    }
    return counters | spread


def _end_with_a_worker(failure: threading.ExceptHookArgs) -> None:
    """End at once when a thread that watches over a worker's process reports its death."""
    if failure.thread is not None and failure.thread.name == "run_worker":
        print(f"a worker died: {failure.exc_value}", file=sys.stderr, flush=True)
        os._exit(WORKER_DIED)
    threading.__excepthook__(failure)


if __name__ == "__main__":
    sys.exit(main())
