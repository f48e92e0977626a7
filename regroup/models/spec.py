"""Which classifier, which weights, and how its input is prepared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from regroup.errors import ConfigurationError
from regroup.models.compute import Compute

if TYPE_CHECKING:
    from regroup.models.recorded import RecordedModel

RANDOM_WEIGHTS = "random"
TIMM_PREFIX = "timm:"


def is_named(model: str) -> bool:
    """Whether a model's name is known here, rather than that of a factory of the user's own."""
    return ":" not in model or model.startswith(TIMM_PREFIX)


@dataclass(frozen=True)
class ModelSpec:
    """A classifier by name; `load_classifier` builds it.

    Attributes:
        name: "cifar-resnet20" (32, 44, 56), "digits-cnn", "efficientnet-lite0", a torchvision
            classifier ("resnet50"), "timm:NAME", or "package.module:factory" (a callable that
            returns an nn.Module).
        weights: a file (.safetensors, .pth, .pt), a member of torchvision's weights enum
            ("IMAGENET1K_V2", "DEFAULT"), or "random". None: those of the package or factory.
        seed: of the "random" weights.
        resize: px; overrides the model's.
        crop: px; overrides the model's.
        interpolation: overrides the model's.
        mean: overrides the model's.
        std: overrides the model's.
        num_classes: size of the output, if a weights file has another than the architecture's
            usual.
        classes: restrict the classifier to these of its classes, in this order (None: all).
        compute: precision and memory format.
        decoder: of the images: "pil", or "cuda" for JPEGs on the GPU.
        recorded: what loading it must give; None: whatever it gives, after a user's own network
            was found to give the same each time.
    """

    name: str
    weights: str | None = None
    seed: int = 0
    resize: int | None = None
    crop: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    num_classes: int | None = None
    classes: tuple[int, ...] | None = None
    compute: Compute = field(default_factory=Compute)
    decoder: Literal["pil", "cuda"] = "pil"
    recorded: RecordedModel | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ConfigurationError for values that no model can have."""
        for option, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and size < 1:
                raise ConfigurationError(f"model {option} is {size}: give a size of 1 px or more")
        if self.num_classes is not None and self.num_classes < 2:
            raise ConfigurationError(f"num_classes is {self.num_classes}: give at least 2")
        if self.std is not None and min(self.std) <= 0:
            raise ConfigurationError(f"model std is {self.std}: each value must be positive")
