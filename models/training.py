"""Train one wafer family: the paper's recipe or ours, with checkpoints along the way, resumable."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import PatchDropout
from torch import nn
from tqdm import tqdm

from models.architectures import Architecture, Recipe
from models.scores import balanced_accuracy, macro_f1
from models.wafers import ENCODINGS, WaferMaps, stack

SIZE = 64


def balanced_recipe(architecture: Architecture, epochs: int, epoch_images: int) -> Recipe:
    """Our recipe: square-root class sampling, wafer-safe augmentation, one-cycle AdamW, averaged weights."""
    return Recipe(
        "adamw",
        architecture.learning_rate,
        0.05,
        64,
        epochs,
        "one-cycle",
        epochs,
        "macro_f1",
        class_weights=False,
        sampling="square-root",
        augmentation="wafer",
        averaging=0.998,
        label_smoothing=0.05,
        epoch_images=epoch_images,
        token_dropout=architecture.token_dropout,
    )


@dataclass(frozen=True)
class Run:
    """Where and how one training run happens; written to ``run.json`` in its folder."""

    architecture: str
    seed: int
    recipe: Recipe
    encoding: str
    data_sha256: str
    mean: float
    std: float


@dataclass
class Progress:
    """State that a resumed run needs besides the tensors."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    since_best: int = 0


class Trainer:
    """One run: ``fit`` trains until the recipe ends, writing ``best.safetensors`` and numbered checkpoints.

    train, early: maps to learn from and maps that choose the checkpoint. The caller's global random state is
    not used: order, augmentation and initialisation come from generators seeded with ``run.seed``.
    """

    def __init__(
        self,
        architecture: Architecture,
        run: Run,
        train: WaferMaps,
        early: WaferMaps,
        folder: Path,
        device: torch.device,
        save_every: int = 0,
        report: Callable[[str], None] = lambda line: None,
        bf16: bool = False,
        minutes: float = math.inf,
    ) -> None:
        self.run, self.folder, self.device, self.report = run, folder, device, report
        self.save_every, self.bf16, self.minutes = save_every, bf16, minutes
        self.table = torch.tensor(ENCODINGS[run.encoding], device=device)
        self.codes, self.labels = torch.from_numpy(stack(train, SIZE)), torch.from_numpy(train.labels)
        self.early_codes, self.early_labels = torch.from_numpy(stack(early, SIZE)), early.labels
        self.n_classes = len(train.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            self.model = architecture.build(self.n_classes, 1).to(device).to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.rng = torch.Generator().manual_seed(run.seed)
        self.progress = Progress()
        recipe = run.recipe
        make = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = make(
            decay_groups(self.model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.999)
        )
        per_epoch = recipe.epoch_images or len(self.labels)
        self.steps_per_epoch = math.ceil(per_epoch / recipe.batch_size)
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps_per_epoch)
        self.weights = class_weights(train.labels, self.n_classes).to(device) if recipe.class_weights else None
        claim(folder, run)

    def fit(self) -> float:
        """Train to the end of the recipe (or of ``minutes``); returns the best early-stopping score."""
        recipe, started = self.run.recipe, time.monotonic()
        if (self.folder / "last.safetensors").exists():
            self.resume()
        while self.progress.epoch < recipe.epochs and self.progress.since_best < recipe.patience:
            with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator: lend it, per epoch
                torch.manual_seed(self.run.seed * 1000 + self.progress.epoch)
                loss = self.epoch()
            self.progress.epoch += 1
            score, early_loss = self.validate()
            if recipe.schedule == "plateau":
                self.scheduler.step(early_loss)
            if score > self.progress.best:
                self.progress.best, self.progress.since_best = score, 0
                save_weights(self.folder / "best.safetensors", self.current())
            else:
                self.progress.since_best += 1
            self.save_last()
            seconds = time.monotonic() - started
            self.report(
                f"epoch {self.progress.epoch}/{recipe.epochs} loss {loss:.4f} {recipe.metric} {score:.4f} "
                f"best {self.progress.best:.4f} {seconds:.0f}s"
            )
            if seconds > 60 * self.minutes:
                break
        return self.progress.best

    def epoch(self) -> float:
        """One pass over the epoch's draw; returns the mean training loss."""
        recipe, total = self.run.recipe, 0.0
        self.model.train()
        self.set_token_dropout()
        name = f"epoch {self.progress.epoch + 1}/{recipe.epochs}"
        # disable=None: a bar on a terminal, silence in a log file.
        for order in tqdm(self.batches(), name, self.steps_per_epoch, leave=False, disable=None, unit="batch"):
            images, labels = self.batch(order)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.model(images)
            loss = F.cross_entropy(logits.float(), labels, weight=self.weights, label_smoothing=recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            if recipe.schedule == "one-cycle":
                self.scheduler.step()
            self.progress.step += 1
            self.update_average()
            if self.save_every and self.progress.step % self.save_every == 0:
                save_weights(self.folder / f"step{self.progress.step:06d}.safetensors", self.current())
            total += float(loss.detach())
        if recipe.schedule == "cosine":
            self.scheduler.step()
        return total / self.steps_per_epoch

    def set_token_dropout(self) -> None:
        """Leave out patch tokens in training (Liu et al. 2023, PatchDropout), except in the last tenth."""
        rate = self.run.recipe.token_dropout
        if rate and hasattr(self.model, "patch_drop"):
            late = self.progress.epoch >= 0.9 * self.run.recipe.epochs
            self.model.patch_drop = nn.Identity() if late else PatchDropout(rate, num_prefix_tokens=1)

    def batches(self) -> Iterator[torch.Tensor]:
        """Index batches of one epoch, drawn as the recipe's sampling says."""
        recipe = self.run.recipe
        n = recipe.epoch_images or len(self.labels)
        if recipe.sampling == "square-root":
            counts = torch.bincount(self.labels, minlength=self.n_classes).clamp(min=1)
            per_image = counts.double().rsqrt()[self.labels]  # class mass n_c / sqrt(n_c) = sqrt(n_c)
            order = torch.multinomial(per_image, n, replacement=True, generator=self.rng)
        else:
            order = torch.randperm(len(self.labels), generator=self.rng)[:n]
        yield from order.split(recipe.batch_size)

    def batch(self, order: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented, encoded, normalised images (b, 1, 64, 64) and labels (b,)."""
        codes, labels = self.codes[order], self.labels[order]
        if self.run.recipe.augmentation == "wafer":
            images = self.table[wafer_augment(codes, self.rng).long().to(self.device)]
        else:
            rare = torch.bincount(self.labels, minlength=self.n_classes)[labels] < 1000
            images = paper_augment(self.table.cpu()[codes.long()], rare, self.rng).to(self.device)
        images = (images[:, None] - self.run.mean) / self.run.std
        return images.contiguous(memory_format=torch.channels_last), labels.to(self.device)

    def update_average(self) -> None:
        """Exponential moving average of weights and buffers, warmed up so that early steps do not linger."""
        limit = self.run.recipe.averaging
        decay = min(limit, (1 + self.progress.step) / (10 + self.progress.step)) if limit else 0.0
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value.detach(), 1 - decay)
                else:
                    self.average[name].copy_(value)

    def current(self) -> dict[str, torch.Tensor]:
        """The weights that are evaluated and saved: the average (equal to the model when averaging is off)."""
        return self.average

    def validate(self) -> tuple[float, float]:
        """(recipe's metric, mean cross-entropy) of the current weights on the early-stopping half."""
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.current())
        logits = self.predict(self.early_codes)
        self.model.load_state_dict(own)
        labels = torch.from_numpy(self.early_labels)
        score = {"macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy}[self.run.recipe.metric]
        loss = float(F.cross_entropy(logits, labels))
        return score(self.early_labels, logits.argmax(1).numpy(), self.n_classes), loss

    @torch.inference_mode()
    def predict(self, codes: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes), float32 on the CPU, for uint8 codes (n, 64, 64)."""
        self.model.eval()
        rows = []
        for part in codes.split(256):
            images = ((self.table[part.long().to(self.device)])[:, None] - self.run.mean) / self.run.std
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                rows.append(self.model(images.contiguous(memory_format=torch.channels_last)).float().cpu())
        return torch.cat(rows)

    def save_last(self) -> None:
        """Write all that a resumed run needs, tensors as safetensors and numbers as JSON (no pickle)."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        state = self.optimizer.state_dict()
        for index, entry in state["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in entry.items()}
        tensors["rng"] = self.rng.get_state()
        numbers = json.dumps(
            {
                "progress": asdict(self.progress),
                "scheduler": plain_numbers(self.scheduler.state_dict()),
                "lr": [group["lr"] for group in self.optimizer.param_groups],
            }
        )
        # Copies: safetensors refuses tensors that share memory, which averaging-off state does.
        copies = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        # The numbers travel with the tensors too: a run killed between two files must not mix two epochs.
        save_file(copies, self.folder / "last.tmp", metadata={"numbers": numbers})
        (self.folder / "last.tmp").replace(self.folder / "last.safetensors")
        (self.folder / "last.json").write_text(numbers)

    def resume(self) -> None:
        """Continue from ``last.safetensors``: the same numbers as an uninterrupted run."""
        tensors = load_file(self.folder / "last.safetensors")
        with safe_open(self.folder / "last.safetensors", framework="pt") as file:
            inside = (file.metadata() or {}).get("numbers")
        numbers = json.loads(inside or (self.folder / "last.json").read_text())
        self.model.load_state_dict(section(tensors, "model."))
        self.average = {k: v.to(self.device) for k, v in section(tensors, "average.").items()}
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in section(tensors, "optimizer.").items():
            index, field = name.split(".", 1)
            entries.setdefault(int(index), {})[field] = value
        state = self.optimizer.state_dict()
        state["state"] = entries
        self.optimizer.load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, numbers["lr"], strict=True):
            group["lr"] = rate
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **numbers["scheduler"]})
        self.rng.set_state(tensors["rng"])
        self.progress = Progress(**numbers["progress"])
        self.report(f"resumed after epoch {self.progress.epoch}")


def claim(folder: Path, run: Run) -> None:
    """Write ``run.json``; ``ValueError`` where ``folder`` already holds progress of a run with other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    path, mine = folder / "run.json", json.loads(json.dumps(asdict(run)))
    if path.exists() and (folder / "last.safetensors").exists():
        found = json.loads(path.read_text())
        if changed := sorted(key for key in mine if found.get(key) != mine[key]):
            raise ValueError(f"{folder} holds a run with another {', '.join(changed)}; give another --out")
    path.write_text(json.dumps(mine, indent=2) + "\n")


def section(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries under ``prefix``, with the prefix cut off."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


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


def save_weights(path: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Write a state dict as safetensors, floats cast to ``dtype``, through a temporary file."""
    out = {
        k: (v.detach().to("cpu", dtype) if v.dtype.is_floating_point else v.detach().cpu()).clone().contiguous()
        for k, v in tensors.items()
    }
    temporary = path.with_suffix(".tmp")
    save_file(out, temporary)
    temporary.replace(path)


def new_run(architecture: Architecture, recipe: Recipe, seed: int, encoding: str, train: WaferMaps) -> Run:
    """Fix everything that can change the result; mean and standard deviation are those of the training pixels."""
    shares = np.bincount(stack(train, SIZE).ravel(), minlength=3) / (len(train) * SIZE * SIZE)
    values = np.asarray(ENCODINGS[encoding])
    mean = float(shares @ values)
    std = float(np.sqrt(shares @ (values - mean) ** 2))
    return Run(architecture.name, seed, recipe, encoding, train.digest, round(mean, 4), round(std, 4))


def print_line(line: str) -> None:
    """Default reporter of the command line."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


__all__ = ["Run", "Trainer", "balanced_recipe", "new_run", "print_line", "save_weights"]
