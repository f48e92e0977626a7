"""Which options every command takes, by its name on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.configs.maintenance import (
    DiffConfig,
    GcConfig,
    InspectConfig,
    LsConfig,
    RepairConfig,
    VerifyConfig,
)
from regroup_pipelines.configs.steps import (
    AttackConfig,
    AttackListConfig,
    BuildBankConfig,
    EvaluateConfig,
    ExtractConfig,
    IndexConfig,
)
from regroup_pipelines.configs.stored import (
    CurveConfig,
    ExportConfig,
    ReportConfig,
    RescoreConfig,
)
from regroup_pipelines.configs.studies import DemoConfig, RunConfig, TrainDemoModelConfig

if TYPE_CHECKING:
    from typing import Any

CONFIGS: dict[str, type[Any]] = {
    "demo": DemoConfig,
    "run": RunConfig,
    "index-dataset": IndexConfig,
    "extract": ExtractConfig,
    "build-bank": BuildBankConfig,
    "attack": AttackConfig,
    "evaluate": EvaluateConfig,
    "rescore": RescoreConfig,
    "curve": CurveConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "ls": LsConfig,
    "inspect": InspectConfig,
    "diff": DiffConfig,
    "verify": VerifyConfig,
    "repair": RepairConfig,
    "gc": GcConfig,
    "train-demo-model": TrainDemoModelConfig,
}

# Options of a command that need none of the others: config classes, and programs, of their own.
ALONE: dict[tuple[str, str], tuple[str, type[Any]]] = {
    ("attack", "--list"): ("attack-list", AttackListConfig)
}


def command_of(config: object) -> str:
    """The command that `config` configures, or its class where it belongs to none."""
    kind = type(config)
    return next((name for name, each in CONFIGS.items() if each is kind), kind.__name__)
