"""How a network computes: precision and memory format. Accumulators are always float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import torch

from regroup.errors import ConfigurationError

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """Precision and memory format of a network.

    Attributes:
        dtype: fp32, or autocast to bf16 or fp16.
        channels_last: NHWC memory.
        tf32: allow TF32 on GPUs.

    Raises:
        ConfigurationError: another dtype.
    """

    dtype: Precision = "fp32"
    channels_last: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Precision):
            raise ConfigurationError(
                f"dtype {self.dtype!r}: choose one of {', '.join(get_args(Precision))}"
            )

    @property
    def dtype_name(self) -> str:
        """The full name: float32, bfloat16 or float16."""
        return str(_DTYPES[self.dtype]).removeprefix("torch.")

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of the network's weights and images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Return the context of a forward pass on `device`."""
        if self.dtype == "fp32":
            return nullcontext()
        return torch.autocast(device.type, _DTYPES[self.dtype])

    def set_tf32(self) -> None:
        """Allow or forbid TF32 for the entire process: a backward pass reads it again.

        torch allows it in convolutions by default.
        """
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32

    def describe(self) -> dict[str, object]:
        """Return plain JSON of what is not the default, for fingerprints; {} for plain float32."""
        default = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in asdict(self).items() if value != default[key]}
