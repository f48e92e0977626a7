"""The config dataclass of every command, by the command's name."""

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
    DefensesConfig,
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
    "defenses": DefensesConfig,
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

# Options that need no other option of their command: each has a config class and a module.
ALONE: dict[tuple[str, str], tuple[str, type[Any]]] = {
    ("attack", "--list"): ("attack-list", AttackListConfig)
}


def command_of(config: object) -> str:
    """Return the command that `config` belongs to, or the name of its class where it has none."""
    kind = type(config)
    return next((name for name, each in CONFIGS.items() if each is kind), kind.__name__)
