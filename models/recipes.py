"""Recipes of training, and the optimizer parts that they name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from models.architectures import Architecture, Recipe


def _one_cycle(architecture: Architecture, epochs: int, epoch_images: int, metric: str, **more: Any) -> Recipe:
    """What our recipes share; more: the fields of a :class:`Recipe` in which they differ."""
    rate = architecture.learning_rate
    return Recipe("adamw", rate, 0.05, 64, epochs, "one-cycle", epochs, metric, class_weights=False,
                  epoch_images=epoch_images, **more)  # fmt: skip


def balanced_recipe(architecture: Architecture, epochs: int, epoch_images: int) -> Recipe:
    """Our recipe: square-root class sampling, wafer-safe augmentation, one-cycle AdamW, averaged weights."""
    return _one_cycle(
        architecture,
        epochs,
        epoch_images,
        "macro_f1",
        sampling="square-root",
        augmentation="wafer",
        averaging=0.998,
        label_smoothing=0.05,
        token_dropout=architecture.token_dropout,
    )


def picture_recipe(architecture: Architecture, epochs: int, epoch_images: int = 0, flip: bool = False) -> Recipe:
    """For small pictures: plain cross-entropy, shifts (and left-right flips), one-cycle AdamW, no averaging.

    Without averaging a numbered checkpoint is the network at that step, not a mean over the steps before it.
    """
    return _one_cycle(
        architecture,
        epochs,
        epoch_images,
        "accuracy",
        augmentation="shift+flip" if flip else "shift",
    )


def plain_numbers(state: dict[str, object]) -> dict[str, object]:
    """The part of a scheduler's state that is plain numbers; the rest is rebuilt from the recipe."""
    return {
        k: v
        for k, v in state.items()
        if isinstance(v, (int, float, list)) and k not in {"base_lrs"} and not k.startswith("_schedule")
    }


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only: biases, norms and tokens are left alone."""
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and "token" not in n and "pos_embed" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim > 1 and "token" not in n and "pos_embed" not in n)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def make_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
) -> Any:  # Any: torch has no common type for schedulers with and without a metric
    """The recipe's learning-rate schedule as a torch scheduler."""
    if recipe.schedule == "one-cycle":
        total = recipe.epochs * steps_per_epoch
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=recipe.learning_rate,
            total_steps=total + 1,
            pct_start=0.1,
            cycle_momentum=False,
            final_div_factor=1000,
        )
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=5)


def class_weights(labels: np.ndarray, n_classes: int) -> torch.Tensor:
    """n / (K * n_c) per class, float32 (K,); an absent class weighs as if it had one image."""
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    return torch.from_numpy((len(labels) / (n_classes * counts)).astype(np.float32))
