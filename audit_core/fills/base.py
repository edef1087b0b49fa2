"""What a fill is: it decides what stands in a pixel whose own value is taken away."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch

from audit_core.documented import Documented
from audit_core.errors import BadData
from audit_core.registry import Registry


@dataclass(frozen=True)
class FillContext:
    """What a fill may know besides the image itself.

    mean, std: the card's normalisation per channel, in pixel units; dataset_mean: float32 (c, h, w), mean of every
    pixel over a data set, in [0, 1], None for an upload; reference: float32 (c, h, w), a nominal image in [0, 1],
    None where there is none; seed: fixes every random draw; others: float32 (m, c, h, w), other images of the data set
    in [0, 1], m >= 1, None for an upload.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset_mean: torch.Tensor | None = None
    reference: torch.Tensor | None = None
    seed: int = 0
    others: torch.Tensor | None = None


class Fill(Documented):
    """Base of all fills; the registered ones are frozen dataclasses.

    family: "constant", "blur", "noise", "data" or "imputation".
    Images are float32 (n, c, h, w) in pixel space, [0, 1]. What an image is filled with depends on that image, the
    parameters and the context alone, bit for bit: not on the other images of the batch, nor on threads. Sums are
    therefore written as element-wise additions in a fixed order, which also lets CPU and CUDA agree.
    """

    static: ClassVar[bool] = True  # apply() only copies from the substrate, so a caller may do that itself
    seeded: ClassVar[bool] = False  # the result depends on the context's seed

    def refuse(self, context: FillContext) -> str | None:
        """The sentence that says why this fill has no meaning here; None when it has one."""
        return None

    def substrate(self, images: torch.Tensor, context: FillContext) -> torch.Tensor:
        """The wholly filled images, float32 (n, c, h, w) in [0, 1], a new tensor on the device of ``images``.

        Raises ``Refused`` with the sentence of :meth:`refuse`.
        """
        raise NotImplementedError

    def apply(self, images: torch.Tensor, changed: torch.Tensor, substrate: torch.Tensor) -> torch.Tensor:
        """``images`` with the pixels where ``changed``, bool (n, h, w), is True filled in all channels.

        substrate: what :meth:`substrate` returned for these images. All other pixels keep their exact bits.
        """
        return torch.where(changed[:, None], substrate, images)


FILLS: Registry[Fill] = Registry("fill")


def generator(name: str, seed: int) -> torch.Generator:
    """A CPU generator that depends on ``name`` and ``seed`` alone; other names give unrelated streams."""
    digest = hashlib.sha256(f"{name} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def ordered_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over the last axis by halving: (…, m) -> (…), m >= 1, always in the same order (see :class:`Fill`)."""
    while (size := values.shape[-1]) > 1:
        half = size // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        values = torch.cat([folded, values[..., 2 * half :]], dim=-1) if size % 2 else folded
    return values[..., 0]


def channel_mean(images: torch.Tensor) -> torch.Tensor:
    """Mean over the pixels of each image and channel: (n, c, h, w) -> (n, c, 1, 1), summed in float64."""
    total = ordered_sum(images.flatten(2).double())
    return (total / (images.shape[2] * images.shape[3])).to(images.dtype)[:, :, None, None]


def per_channel(values: tuple[float, ...], images: torch.Tensor, what: str) -> torch.Tensor:
    """``values`` as (1, c, 1, 1) like ``images``; ``BadData`` when their number is not that of the channels."""
    if len(values) != images.shape[1]:
        raise BadData(
            f"the fill needs one {what} per channel, found {len(values)} for {images.shape[1]} channels; "
            "correct the card"
        )
    return images.new_tensor(values).reshape(1, -1, 1, 1)


def spread(picture: torch.Tensor, images: torch.Tensor, what: str) -> torch.Tensor:
    """``picture`` (c, h, w) repeated for every image as a new tensor; ``BadData`` when the shapes differ."""
    if picture.shape != images.shape[1:]:
        raise BadData(
            f"the {what} must have the images' shape {tuple(images.shape[1:])} (channels, rows, columns), "
            f"found {tuple(picture.shape)}; prepare it for the same checkpoint"
        )
    return picture.to(images).expand_as(images).clone()
