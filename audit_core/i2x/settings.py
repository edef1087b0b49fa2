"""Every choice of an I2X analysis, in one place: what the paper leaves open is a parameter with a default here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from audit_core.errors import InvalidParameter

CRITERIA = ("silhouette", "stability")
TARGETS = ("true", "predicted", "all")
NORMALISATIONS = ("none", "max")
READINGS = ("means", "within")


@dataclass(frozen=True)
class Settings:
    """How prototypes, intensities and the map from prototypes to confidence are made (arXiv 2603.10234).

    The paper fixes K by hand (32 for MNIST, 128 for CIFAR-10) and leaves the others open; these are our defaults.

    - layer: feature stage, by its name on the model's card; empty for the last.
    - components: of the PCA before K-means, 0 for none. locations: how many feature vectors the PCA is fitted on.
    - prototypes: K; 0 chooses it among ``candidates`` by ``criterion``, "silhouette" (Rousseeuw 1987) or "stability"
      (mean adjusted Rand index, Hubert & Arabie 1985, between three seeds).
    - explainer: "grad-cam" for raw Grad-CAM on the layer's grid, or any registered explainer (for a transformer
      "rollout", "gradient-rollout"), averaged to the grid. target: the class that is explained, "true", "predicted"
      or "all" (one intensity per class). normalisation: "none", or "max" (each map over its own largest value).
      relu: cut negative evidence, as Grad-CAM does.
    - min_group: HDBSCAN's smallest group; 0 for 0.5 % of the images, 20 at least, and no more than a twentieth of them
      where there are few (5 at least). min_samples: neighbours that make a place dense; fewer leave less noise.
      group_images: HDBSCAN sees at most so many images, drawn by ``seed``: its cost
      is quadratic.
    - reading: "means" regresses group means on group means, one row per group; "within" regresses image by image
      inside each group and averages the coefficients by group size.
    - ridge: lambda over the mean of the regressors' squared norms, trace(pi' pi) / K.
    - seed: of every random draw.
    """

    layer: str = ""
    components: int = 64
    locations: int = 100_000
    prototypes: int = 16
    candidates: tuple[int, ...] = (8, 12, 16, 24, 32)
    criterion: str = "silhouette"
    explainer: str = "grad-cam"
    target: str = "true"
    normalisation: str = "none"
    relu: bool = True
    min_group: int = 0
    min_samples: int = 5
    group_images: int = 10_000
    reading: str = "means"
    ridge: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        _among("criterion", self.criterion, CRITERIA)
        _among("target", self.target, TARGETS)
        _among("normalisation", self.normalisation, NORMALISATIONS)
        _among("reading", self.reading, READINGS)
        limits = {"components": (0, 4096), "locations": (100, 10**8), "prototypes": (0, 4096),
                  "min_group": (0, 10**7), "min_samples": (1, 10**4), "group_images": (50, 10**6),
                  "ridge": (1e-12, 1e6), "seed": (0, 2**31 - 1)}  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InvalidParameter(f"{name} must be in [{low}, {high:g}], got {getattr(self, name)}")
        if self.prototypes == 1 or not self.candidates or min(self.candidates) < 2:
            raise InvalidParameter("at least 2 prototypes are needed; give prototypes 0 (chosen) or 2 and more")

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Settings:  # Any: JSON values
        """From plain values, as :func:`dataclasses.asdict` gives; an unknown name is an ``InvalidParameter``."""
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(raw) - set(known)):
            raise InvalidParameter(f"an I2X analysis has no setting {unknown[0]!r}; known: {', '.join(known)}")
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in raw.items()}
        return cls(**plain)

    def smallest_group(self, images: int) -> int:
        """HDBSCAN's ``min_cluster_size`` for so many images."""
        if self.min_group:
            return max(2, self.min_group)
        return max(5, min(max(20, images // 200), images // 20))


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidParameter(f"{name} must be one of {', '.join(known)}; got {value!r}")
