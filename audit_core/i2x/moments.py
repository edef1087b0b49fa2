"""What one checkpoint shows of all images: the intensity of every prototype, and its confidences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audit_core.classifier import Classifier
from audit_core.errors import BadCheckpoint
from audit_core.i2x.features import batches, look
from audit_core.i2x.intensity import prototype_intensity
from audit_core.i2x.prototypes import Prototypes
from audit_core.i2x.sample import Sample
from audit_core.i2x.settings import Settings
from audit_core.i2x.trajectory import Moment


def moment(
    classifier: Classifier,
    sample: Sample,
    prototypes: Prototypes,
    settings: Settings,
    report: Callable[[float], None] = lambda share: None,
) -> Moment:
    """Look at every image with one checkpoint; the prototypes stay those of the final model.

    ``BadCheckpoint`` where it answers with NaN or infinity.
    """
    intensities, confidences = [], []
    for start, pixels in batches(classifier, sample.pixels):
        stop = start + len(pixels)
        seen = look(classifier, pixels, sample.labels[start:stop], settings)
        intensities.append(prototype_intensity(seen.saliency, prototypes.assignments[start:stop], prototypes.count))
        confidences.append(seen.confidence.astype(np.float32))
        report(stop / len(sample))
    made = Moment(np.concatenate(intensities), np.concatenate(confidences))
    if not (np.isfinite(made.intensity).all() and np.isfinite(made.confidence).all()):
        raise BadCheckpoint(f"{classifier.card.name} answers with numbers that are not finite; its training diverged")
    return made
