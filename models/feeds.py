"""What a trainer is fed: augmented batches and the images that score it, of wafer maps or of pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from models.pictures import Pictures
from models.wafers import ENCODINGS, WaferMaps, stack

PART = 256


class Feed(Protocol):
    """Images of one training set and one scoring set, normalised, on the trainer's device.

    labels: int64 (n,) of the training images; scoring_labels: int64 (m,), a numpy array; both index ``classes``.
    """

    classes: tuple[str, ...]
    labels: torch.Tensor
    scoring_labels: np.ndarray

    def batch(self, order: torch.Tensor, augmentation: str, rng: torch.Generator) -> torch.Tensor:
        """Augmented images of the indices ``order`` (b,): float32 (b, channels, rows, columns)."""

    def scoring(self) -> Iterator[torch.Tensor]:
        """All scoring images in order, as they are, in parts of at most 256: the same layout."""


class WaferFeed:
    """Wafer maps resized to ``size`` pixels a side, encoded as ``encoding`` says."""

    def __init__(
        self,
        train: WaferMaps,
        early: WaferMaps,
        size: int,
        encoding: str,
        mean: float,
        std: float,
        device: torch.device,
    ) -> None:
        self.classes, self.mean, self.std, self.device = train.classes, mean, std, device
        self.table = torch.tensor(ENCODINGS[encoding], device=device)
        self.codes, self.labels = torch.from_numpy(stack(train, size)), torch.from_numpy(train.labels)
        self.scoring_codes, self.scoring_labels = torch.from_numpy(stack(early, size)), early.labels

    def batch(self, order: torch.Tensor, augmentation: str, rng: torch.Generator) -> torch.Tensor:
        """Our augmentation acts on die codes, the paper's on encoded values, more often on rare classes."""
        codes = self.codes[order]
        if augmentation == "wafer":
            images = self.table[wafer_augment(codes, rng).long().to(self.device)]
        else:
            rare = torch.bincount(self.labels, minlength=len(self.classes))[self.labels[order]] < 1000
            images = paper_augment(self.table.cpu()[codes.long()], rare, rng).to(self.device)
        return ((images[:, None] - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def scoring(self) -> Iterator[torch.Tensor]:
        """The early-stopping maps."""
        for part in self.scoring_codes.split(PART):
            images = (self.table[part.long().to(self.device)][:, None] - self.mean) / self.std
            yield images.contiguous(memory_format=torch.channels_last)


class PictureFeed:
    """Pictures resized to ``size`` pixels a side, as an audit resizes them: bilinear, antialiased, whole."""

    def __init__(
        self,
        train: Pictures,
        test: Pictures,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
    ) -> None:
        self.classes, self.size, self.device = train.classes, size, device
        self.mean, self.std = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
        self.images, self.labels = planes(train), torch.from_numpy(train.labels)
        self.scoring_images, self.scoring_labels = planes(test), test.labels

    def batch(self, order: torch.Tensor, augmentation: str, rng: torch.Generator) -> torch.Tensor:
        """Resized, then shifted by up to an eighth of the side with black moving in, then flipped if asked."""
        images = shift(resize_pictures(self.images[order], self.size), self.size // 8, rng)
        if augmentation == "shift+flip":
            flipped = (torch.rand(len(images), generator=rng) < 0.5)[:, None, None, None]
            images = torch.where(flipped, images.flip(3), images)
        return self._normalised(images)

    def scoring(self) -> Iterator[torch.Tensor]:
        """The pictures of the test split."""
        for part in self.scoring_images.split(PART):
            yield self._normalised(resize_pictures(part, self.size))

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        return ((images.to(self.device) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def planes(pictures: Pictures) -> torch.Tensor:
    """uint8 (n, channels, rows, columns), sharing the pictures' memory."""
    return torch.from_numpy(pictures.images).permute(0, 3, 1, 2)


def resize_pictures(codes: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (n, c, rows, columns) -> float32 (n, c, size, size) in [0, 1]; the triangle filter of Pillow."""
    images = codes.float() / 255
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def shift(images: torch.Tensor, most: int, rng: torch.Generator) -> torch.Tensor:
    """Each image (n, c, rows, columns) moved by -``most`` … ``most`` pixels along both axes; zeros move in."""
    n, c, rows, columns = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = torch.randint(0, 2 * most + 1, (2, n), generator=rng)
    places = (torch.arange(n)[:, None, None, None], torch.arange(c)[None, :, None, None])
    return padded[
        *places,
        (torch.arange(rows) + down[:, None])[:, None, :, None],
        (torch.arange(columns) + right[:, None])[:, None, None, :],
    ]


def wafer_augment(codes: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Random view of each wafer, uint8 (n, s, s) -> the same: what a fab could have measured as well.

    Flip and quarter turn always, any rotation in half of the maps, up to 4 % zoom and one die of shift in a
    third, and 1 % of the dies flipped between passed and failed in half. Nearest neighbour: codes stay codes.
    """
    n, size = len(codes), codes.shape[-1]
    uniform = lambda: torch.rand(n, generator=rng)
    quarter = torch.randint(0, 4, (n,), generator=rng).float() * (math.pi / 2)
    free = (uniform() * 2 * math.pi) * (uniform() < 0.5)
    angle = quarter + free
    flip = torch.where(uniform() < 0.5, -1.0, 1.0)
    moved = (uniform() < 1 / 3).float()
    zoom = 1 + (uniform() * 0.08 - 0.04) * moved
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift = (torch.rand((2, n), generator=rng) * 2 - 1) * (4 / size) * moved
    theta = torch.stack([torch.stack([cos * flip, -sin, shift[0]], 1), torch.stack([sin * flip, cos, shift[1]], 1)], 1)
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    out = F.grid_sample(codes[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].to(torch.uint8)
    share = 0.01 * (uniform() < 0.5)[:, None, None]
    struck = torch.rand(out.shape, generator=rng) < share
    return torch.where(struck & (out > 0), 3 - out, out)


def paper_augment(images: torch.Tensor, rare: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The paper's augmentation on encoded images (n, s, s) in [0, 1]; probabilities double where ``rare``.

    p 0.7 quarter turns, p 0.5 left-right, p 0.5 up-down, p 0.3 Gaussian noise of sigma 0.05, clipped.
    """
    n = len(images)
    chance = lambda p: torch.rand(n, generator=rng) < torch.where(rare, min(2 * p, 1.0), p)
    turns = torch.randint(1, 4, (n,), generator=rng) * chance(0.7)
    out = torch.stack([torch.rot90(image, int(k)) for image, k in zip(images, turns, strict=True)])
    out = torch.where(chance(0.5)[:, None, None], out.flip(2), out)
    out = torch.where(chance(0.5)[:, None, None], out.flip(1), out)
    noise = 0.05 * torch.randn(out.shape, generator=rng) * chance(0.3)[:, None, None]
    return (out + noise).clamp(0, 1)
