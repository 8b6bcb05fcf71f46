"""Enum values whose number is not their place in the discovery document, by service, message and field.

The documents list values without their numbers; nearly always in the order of the numbers. The exceptions were read
from the descriptors of the google-cloud packages (a test compares those of the packages that are installed).
"""

from __future__ import annotations

from collections.abc import Mapping

_Numbers = Mapping[str, int]
_LAUNCH_STAGES = {
    "EARLY_ACCESS": 1,
    "ALPHA": 2,
    "BETA": 3,
    "GA": 4,
    "DEPRECATED": 5,
    "UNIMPLEMENTED": 6,
    "PRELAUNCH": 7,
}

_ROWS: tuple[tuple[str, tuple[str, ...], _Numbers], ...] = (
    ("aiplatform", ("AuthConfig.authType",), {"OAUTH": 6, "OIDC_AUTH": 8}),
    ("aiplatform", ("CometSpec.version",), {"COMET_22_SRC_REF": 2}),
    (
        "aiplatform",
        ("CreateEndpointOperationMetadata.deploymentStage", "DeployModelOperationMetadata.deploymentStage"),
        {
            "STARTING_MODEL_SERVER": 3,
            "FINISHING_UP": 4,
            "STARTING_DEPLOYMENT": 5,
            "PREPARING_MODEL": 6,
            "CREATING_SERVING_CLUSTER": 7,
            "ADDING_NODES_TO_CLUSTER": 8,
            "GETTING_CONTAINER_IMAGE": 9,
            "DEPLOYMENT_TERMINATED": 10,
            "SUCCESSFULLY_DEPLOYED": 11,
            "FAILED_TO_DEPLOY": 12,
        },
    ),
    ("aiplatform", ("DeployedIndex.deploymentTier",), {"STORAGE": 2}),
    (
        "aiplatform",
        ("DistillationHyperParameters.adapterSize", "SupervisedHyperParameters.adapterSize"),
        {
            "ADAPTER_SIZE_FOUR": 2,
            "ADAPTER_SIZE_EIGHT": 3,
            "ADAPTER_SIZE_SIXTEEN": 4,
            "ADAPTER_SIZE_THIRTY_TWO": 5,
            "ADAPTER_SIZE_TWO": 6,
        },
    ),
    (
        "aiplatform",
        ("EmbedContentRequest.taskType",),
        {
            "RETRIEVAL_QUERY": 2,
            "RETRIEVAL_DOCUMENT": 3,
            "SEMANTIC_SIMILARITY": 4,
            "CLASSIFICATION": 5,
            "CLUSTERING": 6,
            "QUESTION_ANSWERING": 7,
            "FACT_VERIFICATION": 8,
            "CODE_RETRIEVAL_QUERY": 9,
        },
    ),
    (
        "aiplatform",
        ("EnterpriseWebSearch.blockingConfidence",),
        {
            "BLOCK_LOW_AND_ABOVE": 30,
            "BLOCK_MEDIUM_AND_ABOVE": 40,
            "BLOCK_HIGH_AND_ABOVE": 50,
            "BLOCK_HIGHER_AND_ABOVE": 55,
            "BLOCK_VERY_HIGH_AND_ABOVE": 60,
            "BLOCK_ONLY_EXTREMELY_HIGH": 100,
        },
    ),
    ("aiplatform", ("ExportDataConfig.exportUse",), {"CUSTOM_CODE_TRAINING": 6}),
    (
        "aiplatform",
        ("Feature.valueType",),
        {"INT64": 9, "INT64_ARRAY": 10, "STRING": 11, "STRING_ARRAY": 12, "BYTES": 13, "STRUCT": 14},
    ),
    ("aiplatform", ("FunctionCallingConfig.mode",), {"VALIDATED": 5}),
    (
        "aiplatform",
        ("MachineSpec.acceleratorType",),
        {
            "TPU_V2": 6,
            "TPU_V3": 7,
            "NVIDIA_TESLA_A100": 8,
            "NVIDIA_A100_80GB": 9,
            "TPU_V4_POD": 10,
            "NVIDIA_L4": 11,
            "TPU_V5_LITEPOD": 12,
            "NVIDIA_H100_80GB": 13,
            "NVIDIA_H100_MEGA_80GB": 14,
            "NVIDIA_H200_141GB": 15,
            "NVIDIA_B200": 16,
            "NVIDIA_GB200": 17,
            "NVIDIA_RTX_PRO_6000": 18,
        },
    ),
    ("aiplatform", ("Memory.memoryType",), {"STRUCTURED_PROFILE": 3}),
    ("aiplatform", ("NotebookRuntime.runtimeState",), {"ERROR": 100, "INVALID": 101}),
    (
        "aiplatform",
        ("PersistentResource.state",),
        {"RUNNING": 3, "STOPPING": 4, "ERROR": 5, "REBOOTING": 6, "UPDATING": 7},
    ),
    ("aiplatform", ("ReasoningEngineRuntimeRevision.state",), {"ARCHIVED": 3}),
    ("aiplatform", ("ReasoningEngineSpec.identityType",), {"SERVICE_ACCOUNT": 2, "AGENT_IDENTITY": 3}),
    ("aiplatform", ("SafetyRating.category", "SafetySetting.category"), {"HARM_CATEGORY_JAILBREAK": 6}),
    ("aiplatform", ("Scheduling.strategy",), {"FLEX_START": 6}),
    ("aiplatform", ("StudySpec.algorithm",), {"GRID_SEARCH": 2, "RANDOM_SEARCH": 3}),
    ("aiplatform", ("UsageMetadata.trafficType",), {"PROVISIONED_THROUGHPUT": 2}),
    (
        "aiplatform",
        ("VeoHyperParameters.adapterSize",),
        {"ADAPTER_SIZE_EIGHT": 8, "ADAPTER_SIZE_SIXTEEN": 16, "ADAPTER_SIZE_THIRTY_TWO": 32},
    ),
    # The last three are younger than the client that the others were read from: counted on.
    (
        "alloydb",
        ("Instance.state",),
        {"BOOTSTRAPPING": 8, "PROMOTING": 9, "SWITCHOVER": 10, "STOPPING": 11, "STARTING": 12},
    ),
    (
        "alloydb",
        ("UpgradeClusterResponse.status", "UpgradeClusterStatus.state"),
        {"SUCCESS": 1, "FAILED": 2, "PARTIAL_SUCCESS": 3, "NOT_STARTED": 4, "IN_PROGRESS": 5},
    ),
    (
        "cloudbuild",
        ("Build.status", "BuildStep.status"),
        {
            "QUEUED": 1,
            "WORKING": 2,
            "SUCCESS": 3,
            "FAILURE": 4,
            "INTERNAL_ERROR": 5,
            "TIMEOUT": 6,
            "CANCELLED": 7,
            "PENDING": 10,
        },
    ),
    ("cloudbuild", ("BuildApproval.state",), {"CANCELLED": 5}),
    ("cloudbuild", ("BuildOptions.logging",), {"NONE": 4, "CLOUD_LOGGING_ONLY": 5}),
    (
        "cloudbuild",
        ("BuildOptions.machineType",),
        {"E2_HIGHCPU_8": 5, "E2_HIGHCPU_32": 6, "E2_MEDIUM": 7, "E2_STANDARD_2": 11},
    ),
    ("cloudbuild", ("BuildOptions.requestedVerifyOption",), {"BEST_EFFORT": 3}),
    ("cloudbuild", ("InstallationState.stage",), {"COMPLETE": 10}),
    (
        "logging",
        (
            "MetricDescriptor.launchStage",
            "MetricDescriptorMetadata.launchStage",
            "MonitoredResourceDescriptor.launchStage",
        ),
        _LAUNCH_STAGES,
    ),
    (
        "monitoring",
        ("Aggregation.crossSeriesReducer",),
        {
            "REDUCE_FRACTION_TRUE": 8,
            "REDUCE_PERCENTILE_99": 9,
            "REDUCE_PERCENTILE_95": 10,
            "REDUCE_PERCENTILE_50": 11,
            "REDUCE_PERCENTILE_05": 12,
            "REDUCE_COUNT_FALSE": 15,
        },
    ),
    (
        "monitoring",
        ("Aggregation.perSeriesAligner",),
        {
            "ALIGN_MIN": 10,
            "ALIGN_MAX": 11,
            "ALIGN_MEAN": 12,
            "ALIGN_COUNT": 13,
            "ALIGN_SUM": 14,
            "ALIGN_STDDEV": 15,
            "ALIGN_COUNT_TRUE": 16,
            "ALIGN_FRACTION_TRUE": 17,
            "ALIGN_PERCENTILE_99": 18,
            "ALIGN_PERCENTILE_95": 19,
            "ALIGN_PERCENTILE_50": 20,
            "ALIGN_PERCENTILE_05": 21,
            "ALIGN_PERCENT_CHANGE": 23,
            "ALIGN_COUNT_FALSE": 24,
        },
    ),
    ("monitoring", ("AlertStrategy.notificationPrompts",), {"CLOSED": 3}),
    (
        "monitoring",
        (
            "MetricDescriptor.launchStage",
            "MetricDescriptorMetadata.launchStage",
            "MonitoredResourceDescriptor.launchStage",
            "NotificationChannelDescriptor.launchStage",
        ),
        _LAUNCH_STAGES,
    ),
    (
        "monitoring",
        ("ResponseStatusCode.statusClass",),
        {
            "STATUS_CLASS_1XX": 100,
            "STATUS_CLASS_2XX": 200,
            "STATUS_CLASS_3XX": 300,
            "STATUS_CLASS_4XX": 400,
            "STATUS_CLASS_5XX": 500,
            "STATUS_CLASS_ANY": 1000,
        },
    ),
    ("monitoring", ("Threshold.color",), {"YELLOW": 4, "RED": 6}),
    ("monitoring", ("UptimeCheckConfig.checkerType",), {"VPC_CHECKERS": 3}),
    (
        "run",
        ("Condition.reason",),
        {
            "REVISION_FAILED": 3,
            "PROGRESS_DEADLINE_EXCEEDED": 4,
            "CONTAINER_MISSING": 6,
            "CONTAINER_PERMISSION_DENIED": 7,
            "CONTAINER_IMAGE_UNAUTHORIZED": 8,
            "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED": 9,
            "ENCRYPTION_KEY_PERMISSION_DENIED": 10,
            "ENCRYPTION_KEY_CHECK_FAILED": 11,
            "SECRETS_ACCESS_CHECK_FAILED": 12,
            "WAITING_FOR_OPERATION": 13,
            "IMMEDIATE_RETRY": 14,
            "POSTPONED_RETRY": 15,
            "INTERNAL": 16,
            "VPC_NETWORK_NOT_FOUND": 17,
        },
    ),
    (
        "run",
        (
            "Execution.launchStage",
            "Instance.launchStage",
            "Job.launchStage",
            "Revision.launchStage",
            "Service.launchStage",
            "SubmitBuildRequest.releaseTrack",
            "WorkerPool.launchStage",
        ),
        _LAUNCH_STAGES,
    ),
)

NUMBERS: Mapping[str, Mapping[str, _Numbers]] = {
    service: {field: numbers for owner, fields, numbers in _ROWS if owner == service for field in fields}
    for service, _, _ in _ROWS
}
"""Service to ``Message.field`` to value to number."""
