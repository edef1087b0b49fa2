"""Train on wafer maps or on pictures: a recipe, checkpoints along the way, resumable bit for bit."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.layers import PatchDropout
from torch import nn
from tqdm import tqdm

from models.architectures import Architecture
from models.feeds import Feed, PictureFeed, WaferFeed
from models.pictures import Pictures
from models.recipes import balanced_recipe, class_weights, decay_groups, make_scheduler, picture_recipe, plain_numbers
from models.runs import Saved, checkpoint_file, saving_steps, write_manifest
from models.scores import accuracy, balanced_accuracy, macro_f1
from models.settings import Run, claim, new_run, picture_run, settings
from models.wafers import WaferMaps

METRICS = {"macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy, "accuracy": accuracy}


@dataclass
class Progress:
    """State that a resumed run needs besides the tensors."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    since_best: int = 0


class Trainer:
    """One run: ``fit`` trains until the recipe ends, writing ``best.safetensors`` and numbered checkpoints.

    train, scoring: images to learn from and images that choose the checkpoint, both wafer maps or both pictures. The
    caller's global random state is not used: order, augmentation and initialisation come from generators seeded with
    ``run.seed``.
    """

    def __init__(
        self,
        architecture: Architecture,
        run: Run,
        train: WaferMaps | Pictures,
        scoring: WaferMaps | Pictures,
        folder: Path,
        device: torch.device,
        report: Callable[[str], None] = lambda line: None,
        bf16: bool = False,
        minutes: float = math.inf,
    ) -> None:
        self.run, self.folder, self.device, self.report = run, folder, device, report
        self.bf16, self.minutes = bf16, minutes
        self.feed = feed_of(run, train, scoring, device)
        self.labels, self.n_classes = self.feed.labels, len(self.feed.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            model = architecture.build(self.n_classes, run.channels)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.rng = torch.Generator().manual_seed(run.seed)
        self.progress = Progress()
        recipe = run.recipe
        make = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = make(
            decay_groups(self.model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.999)
        )
        per_epoch = recipe.epoch_images or len(self.labels)
        if per_epoch < 1 or (recipe.sampling != "square-root" and per_epoch > len(self.labels)):
            raise ValueError(
                f"--epoch-images must be 0 (all) to {len(self.labels):,}, got {recipe.epoch_images:,}: without drawing "
                "by class an epoch sees an image at most once"
            )
        self.steps_per_epoch = math.ceil(per_epoch / recipe.batch_size)
        self.scheduler = make_scheduler(self.optimizer, recipe, self.steps_per_epoch)
        self.weights = class_weights(train.labels, self.n_classes).to(device) if recipe.class_weights else None
        self.save_at = saving_steps(run.save_every, recipe.epochs * self.steps_per_epoch)
        self.saved = claim(folder, run)

    def fit(self) -> float:
        """Train to the end of the recipe (or of ``minutes``); returns the best score on the scoring images."""
        recipe, started = self.run.recipe, time.monotonic()
        if (self.folder / "last.safetensors").exists():
            self.resume()
        self.saved = {step: saved for step, saved in self.saved.items() if step <= self.progress.step}
        if 0 in self.save_at and 0 not in self.saved:
            self.save_numbered()
        while not self.finished():
            with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator: lend it, per epoch
                torch.manual_seed(self.run.seed * 1000 + self.progress.epoch)
                loss = self.epoch()
            self.progress.epoch += 1
            score, scoring_loss = self.validate()
            if recipe.schedule == "plateau":
                self.scheduler.step(scoring_loss)
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
        # A log-spaced run ends with a checkpoint even where patience ended it early.
        if self.finished() and 0 in self.save_at and self.progress.step not in self.saved:
            self.save_numbered()
        return self.progress.best

    def finished(self) -> bool:
        """Whether the recipe's epochs or its patience are used up."""
        recipe = self.run.recipe
        return self.progress.epoch >= recipe.epochs or self.progress.since_best >= recipe.patience

    def epoch(self) -> float:
        """One pass over the epoch's draw; returns the mean training loss."""
        recipe, total = self.run.recipe, 0.0
        self.model.train()
        self.set_token_dropout()
        name = f"epoch {self.progress.epoch + 1}/{recipe.epochs}"
        # disable=None: a bar on a terminal, silence in a log file.
        for order in tqdm(self.batches(), name, self.steps_per_epoch, leave=False, disable=None, unit="batch"):
            images = self.feed.batch(order, recipe.augmentation, self.rng)
            labels = self.labels[order].to(self.device)
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
            if self.progress.step in self.save_at:
                self.save_numbered()
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
        """(recipe's metric, mean cross-entropy) of the current weights on the scoring images."""
        logits = self.logits_of(self.current())
        loss = float(F.cross_entropy(logits, torch.from_numpy(self.feed.scoring_labels)))
        return self.score(self.run.recipe.metric, logits), loss

    def score(self, metric: str, logits: torch.Tensor) -> float:
        """One of ``METRICS`` on the scoring images."""
        return METRICS[metric](self.feed.scoring_labels, logits.argmax(1).numpy(), self.n_classes)

    def logits_of(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (m, classes) of the scoring images under other weights; the model is given back as it was."""
        own, training = {k: v.detach().clone() for k, v in self.model.state_dict().items()}, self.model.training
        self.model.load_state_dict(weights)
        logits = self.predict()
        self.model.load_state_dict(own)
        self.model.train(training)
        return logits

    @torch.inference_mode()
    def predict(self) -> torch.Tensor:
        """Logits (m, classes) of the scoring images, float32 on the CPU, in eval mode."""
        self.model.eval()
        rows = []
        for images in self.feed.scoring():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                rows.append(self.model(images).float().cpu())
        return torch.cat(rows)

    def save_numbered(self) -> None:
        """Keep the current weights under their step, scored exactly as they are stored, and list them."""
        dtype = torch.float16 if self.run.half else torch.float32
        stored, step = cast(self.current(), dtype), self.progress.step
        save_weights(self.folder / checkpoint_file(step), stored, dtype)
        logits = self.logits_of(stored)
        loss = float(F.cross_entropy(logits, torch.from_numpy(self.feed.scoring_labels)))
        epoch = round(step / self.steps_per_epoch, 4)
        self.saved[step] = Saved(step, checkpoint_file(step), epoch, round(loss, 6), self.score("accuracy", logits))
        write_manifest(self.folder, settings(self.run), list(self.saved.values()))

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


def feed_of(run: Run, train: WaferMaps | Pictures, scoring: WaferMaps | Pictures, device: torch.device) -> Feed:
    """What the trainer is fed, at the run's input size."""
    size = run.input_size[0]
    if isinstance(train, Pictures) and isinstance(scoring, Pictures):
        return PictureFeed(train, scoring, size, run.mean, run.std, device)
    if isinstance(train, WaferMaps) and isinstance(scoring, WaferMaps):
        return WaferFeed(train, scoring, size, run.encoding, run.mean[0], run.std[0], device)
    raise ValueError("a run learns from wafer maps or from pictures and is scored on the same kind, not on both")


def section(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries under ``prefix``, with the prefix cut off."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def cast(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Floats in ``dtype``, everything else (counters) as it is; detached."""
    return {k: v.detach().to(dtype) if v.dtype.is_floating_point else v.detach() for k, v in tensors.items()}


def save_weights(path: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Write a state dict as safetensors, floats cast to ``dtype``, through a temporary file."""
    out = {k: v.cpu().clone().contiguous() for k, v in cast(tensors, dtype).items()}
    temporary = path.with_suffix(".tmp")
    save_file(out, temporary)
    temporary.replace(path)


def print_line(line: str) -> None:
    """Default reporter of the command line."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


__all__ = [
    "Run",
    "Trainer",
    "balanced_recipe",
    "new_run",
    "picture_recipe",
    "picture_run",
    "print_line",
    "save_weights",
]
