"""What the driver found a network to be, which every later load of it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError
from regroup.models.probe import (
    PROBE_SEED,
    TOLERANCE,
    Logits,
    logit_difference,
    probe_logits,
    recorded_logits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup.models.classifier import Classifier

_ADVICE = {
    "weights_sha256": "give every node the same weights file, and leave it as it is during a run",
    "source_sha256": "give every node the same sources, and leave them as they are during a run",
    "attributes_sha256": (
        "let the factory build the same on every node (a table of sines may differ in its last bit "
        "between processors: save it with the weights)"
    ),
}


class ChangedModelError(ConfigurationError):
    """A network is not the one that was recorded, so every other attempt would fail as well."""

    fatal = True


@dataclass(frozen=True)
class RecordedModel:
    """A network as the driver found it.

    Attributes:
        description: `Classifier.describe()`.
        class_names: of its classes, if known.
        logits: of the probe, see `regroup.models.probe`; None of a stochastic network.
    """

    description: Mapping[str, object]
    class_names: tuple[str, ...] | None
    logits: Logits | None

    @classmethod
    def of(cls, classifier: Classifier) -> RecordedModel:
        """Record a classifier, on the CPU."""
        logits = None if classifier.stochastic else recorded_logits(probe_logits(classifier))
        return cls(classifier.describe(), classifier.class_names, logits)

    def require(self, classifier: Classifier) -> None:
        """Refuse a classifier that is not the recorded one.

        Raises:
            ChangedModelError: its description, class names or logits differ.
        """
        found = classifier.describe()
        for key in sorted(set(self.description) | set(found)):
            if self.description.get(key) != found.get(key):
                raise ChangedModelError(
                    f"the model {classifier.name} that was loaded here is not the one that the "
                    f"command recorded ({key} is {found.get(key)}, not "
                    f"{self.description.get(key)}): {_ADVICE.get(key, _ADVICE['source_sha256'])}"
                )
        if classifier.class_names != self.class_names:
            raise ChangedModelError(
                f"the model {classifier.name} that was loaded here names its classes differently "
                f"from what the command recorded: {_ADVICE['source_sha256']}"
            )
        self._require_logits(classifier)

    def _require_logits(self, classifier: Classifier) -> None:
        if self.logits is None:
            return
        now = recorded_logits(probe_logits(classifier))
        if (found := logit_difference(now, self.logits)) > TOLERANCE:
            raise ChangedModelError(
                f"the model {classifier.name} that was loaded here gives other logits than where "
                f"the command began (by {found:.1g} of the largest): it reads something that is "
                "not the same here, such as a file, a variable or the version of a library: give "
                "every node the same"
            )

    def as_json(self) -> dict[str, object]:
        """Return what an element's manifest records of it, unhashed."""
        if self.logits is None:
            return {}
        return {"probe": {"seed": PROBE_SEED, "logits": [list(row) for row in self.logits]}}
