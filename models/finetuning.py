"""Fine-tune a network on images in memory: one plain loop, its order fixed by a generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class FineTuning:
    """AdamW at a constant rate; the same numbers for every training set that is compared."""

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 1 or not 0 <= self.weight_decay <= 1 or not 2 <= self.batch_size <= 4096:
            raise ValueError(
                "fine-tuning takes a rate in (0, 1], a decay in [0, 1] and batches of 2 to 4096; got "
                f"{self.learning_rate:g}, {self.weight_decay:g} and {self.batch_size}"
            )


def fine_tune(
    module: nn.Module,
    images: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    recipe: FineTuning,
    rng: torch.Generator,
    report: Callable[[float], None] = lambda share: None,
    keep: torch.Tensor | None = None,
) -> float:
    """One epoch over the images with ``labels``, int64 (n,), in place; returns the mean cross-entropy, lower is better.

    images: normalised images of a batch of indices, on the module's device. keep: bool (n,), the images to learn from,
    all for None; they come in the order that ``rng`` gives all n, so that subsets share it. The module is left in eval
    mode; the global random state (dropout draws from it) is as found.
    """
    import torch  # here: pages read the recipe without it
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    order = torch.randperm(len(labels), generator=rng)
    if keep is not None:
        order = order[keep[order]]
    seed = int(torch.randint(2**31, (), generator=rng))
    total, done = 0.0, 0
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        module.train()
        try:
            for places in order.split(recipe.batch_size):
                if len(places) < 2:  # batch norm has no spread of one image
                    continue
                inputs = images(places)
                loss = F.cross_entropy(module(inputs), labels[places].to(inputs.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(places)
                done += len(places)
                report(done / len(order))
        finally:
            module.eval()
            optimizer.zero_grad(set_to_none=True)
    return total / max(done, 1)
