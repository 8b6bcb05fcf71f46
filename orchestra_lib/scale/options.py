"""Settings as the options of a job on Dataflow: the same pipeline, other workers.

https://docs.cloud.google.com/dataflow/docs/reference/pipeline-options
"""

from __future__ import annotations

from orchestra_lib.errors import ParameterError
from orchestra_lib.settings.model import Settings


def most_at_once(settings: Settings) -> int:
    """How many workers go at once at most, which is what a limit of all together is shared among.

    On Dataflow a batch worker is a process of one thread for each core of a machine; elsewhere they are our processes.
    https://docs.cloud.google.com/dataflow/docs/guides/troubleshoot-oom
    """
    dataflow = settings.scale.dataflow
    if dataflow is None:
        return settings.scale.workers
    return dataflow.most_workers * int(dataflow.machine_type.rpartition("-")[2])


def dataflow_flags(settings: Settings, job_name: str) -> tuple[str, ...]:
    """Beam's options, in the form of its command line. Raises ParameterError where the settings name no Dataflow.

    Workers have private addresses only, in the environment's own subnet, so they reach AlloyDB and nothing else does
    reach them. ``job_name`` is lower case letters, digits and hyphens; two jobs of one name cannot run at once, which
    keeps a transfer from being started twice.
    """
    wanted = settings.scale.dataflow
    if wanted is None:
        raise ParameterError(
            f"{settings.environment.name} names no Dataflow workers: fill scale.dataflow in its parameter file "
            "(bucket, image, service_account), or let the pipeline run on this machine"
        )
    project, regions, network = settings.project, settings.regions, settings.network
    if project is None or regions is None or network is None:
        raise ParameterError(f"{settings.environment.name} has no project, regions and network: Dataflow needs them")
    region = regions.primary
    labels = (f"--labels={key}={value}" for key, value in (settings.labels or {}).items())
    return (
        "--runner=DataflowRunner",
        f"--project={project.id}",
        f"--region={region}",
        f"--job_name={job_name}",
        f"--temp_location=gs://{wanted.bucket}/temp",
        f"--staging_location=gs://{wanted.bucket}/staging",
        f"--service_account_email={wanted.service_account}@{project.id}.iam.gserviceaccount.com",
        f"--subnetwork=regions/{region}/subnetworks/{network.name}-{region}",
        "--no_use_public_ips",
        f"--worker_machine_type={wanted.machine_type}",
        f"--num_workers={wanted.workers}",
        f"--max_num_workers={wanted.most_workers}",
        f"--autoscaling_algorithm={'NONE' if wanted.workers == wanted.most_workers else 'THROUGHPUT_BASED'}",
        f"--disk_size_gb={wanted.disk_gib}",
        f"--sdk_container_image={wanted.image}",
        "--sdk_location=container",
        "--experiments=use_runner_v2",
        *labels,
    )
