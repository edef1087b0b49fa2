"""Inpainting by OpenCV: removed pixels are painted from the rim of what stays, inwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch

from audit_core.fills.base import FILLS, Fill, FillContext, channel_mean
from audit_core.params import Between

LEVELS = 255  # the algorithms' constants are meant for grey levels, so pixels are given to them as 8-bit numbers


class Inpainting(Fill):
    """What both algorithms share: 8-bit numbers, one channel at a time, and the mean colour where nothing is kept."""

    static: ClassVar[bool] = False
    family: ClassVar[str] = "imputation"
    library: ClassVar[str] = "OpenCV (cv2.inpaint)"
    algorithm: ClassVar[int]
    radius: int

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The mean colour of each image."""
        return channel_mean(images).expand_as(images).clone()

    def apply(self, images: torch.Tensor, changed: torch.Tensor, substrate: torch.Tensor) -> torch.Tensor:
        """See :meth:`Fill.apply`; painted from the kept pixels alone, and from ``substrate`` where none is kept."""
        known = torch.where(changed[:, None], 0, (images * LEVELS).round()).byte().cpu().numpy()
        pairs = zip(known, changed.cpu().numpy(), strict=True)
        painted = np.stack([self._painted(image, removed) for image, removed in pairs])
        nothing_kept = changed.flatten(1).all(dim=1)[:, None, None, None]
        filled = torch.where(nothing_kept, substrate, torch.from_numpy(painted).to(images) / LEVELS)
        return torch.where(changed[:, None], filled, images)

    def _painted(self, image: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """uint8 (c, h, w) with the pixels painted where ``removed``, bool (h, w); untouched when all or none are."""
        if removed.all() or not removed.any():
            return image
        # For a kept pixel on the border OpenCV reads its inner neighbour instead, removed or not. A frame of removed
        # pixels, painted and cut off again, leaves no kept pixel on the border.
        where = np.pad(removed.astype(np.uint8), 1, constant_values=1)
        framed = (np.pad(channel, 1) for channel in image)
        return np.stack([cv2.inpaint(channel, where, self.radius, self.algorithm) for channel in framed])[:, 1:-1, 1:-1]


@FILLS.register("inpaint-telea")
@dataclass(frozen=True)
class InpaintTelea(Inpainting):
    """A removed pixel becomes what the kept pixels around it suggest, painted from the rim of the hole inwards.

    Telea's fast marching method: each pixel is a weighted mean of the known ones within ``radius``, each continued
    along its gradient; near ones and those across the rim count most. Filled values are 8-bit (steps of 1/255), kept
    pixels keep their own. An image of which nothing is kept becomes its own mean colour.
    Source: Telea 2004; as a fill, Blücher et al. 2024.
    """

    radius: Annotated[int, Between(1, 32, "px", "How far away a known pixel may be to count.")] = 3

    title: ClassVar[str] = "Inpainting (Telea)"
    formula: ClassVar[str] = (
        "x_p = sum_q w_pq (x_q + grad x_q . (p - q)) / sum_q w_pq over known q within radius, p in order of its "
        "distance to the rim; w = direction x closeness x closeness of the distances to the rim"
    )
    source: ClassVar[str] = (
        "Telea 2004, https://doi.org/10.1080/10867651.2004.10487596; as a fill: Blücher et al. 2024, "
        "https://arxiv.org/abs/2401.06654"
    )
    witness: ClassVar[str] = (
        "closed form: an isolated pixel becomes the mean of its four neighbours: "
        "tests/test_fills.py::test_telea_gives_an_isolated_pixel_the_mean_of_its_neighbours"
    )
    pitfalls: ClassVar[str] = (
        "OpenCV adds up to 1.4 grey levels per painted pixel, so even a flat surrounding drifts across a large hole. "
        "Runs on the CPU, image by image, and is slow at high resolution."
    )
    algorithm: ClassVar[int] = cv2.INPAINT_TELEA


@FILLS.register("inpaint-ns")
@dataclass(frozen=True)
class InpaintNavierStokes(Inpainting):
    """A removed pixel becomes what continues the lines of equal brightness that run into the hole.

    Painted from the rim inwards: each pixel is a weighted mean of the known ones within ``radius``, those along lines
    of equal brightness first. Filled values are 8-bit (steps of 1/255), kept pixels keep their own. An image of which
    nothing is kept becomes its own mean colour.
    Source: Bertalmio, Bertozzi and Sapiro 2001, who transport brightness as a fluid transports vorticity; as a fill,
    Blücher et al. 2024.
    """

    radius: Annotated[int, Between(1, 32, "px", "How far away a known pixel may be to count.")] = 3

    title: ClassVar[str] = "Inpainting (Navier-Stokes)"
    formula: ClassVar[str] = (
        "x_p = sum_q w_pq x_q / sum_q w_pq over known q within radius, p in order of its distance to the rim; w falls "
        "with the distance and with the angle between p - q and the line of equal brightness through q"
    )
    source: ClassVar[str] = (
        "Bertalmio, Bertozzi and Sapiro 2001, https://doi.org/10.1109/CVPR.2001.990497; as a fill: "
        "Blücher et al. 2024, https://arxiv.org/abs/2401.06654"
    )
    witness: ClassVar[str] = (
        "closed forms: a flat surrounding is continued exactly, filled values are means of kept ones: "
        "tests/test_fills.py::test_navier_stokes_only_averages_what_is_kept"
    )
    pitfalls: ClassVar[str] = (
        "OpenCV computes a fast approximation, not the fluid equations. Edges that run into the hole are drawn on, so "
        "it can restore the very evidence that was removed. Runs on the CPU, image by image."
    )
    algorithm: ClassVar[int] = cv2.INPAINT_NS
