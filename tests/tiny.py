"""Tiny classifiers with fixed random weights and hand-written cards, for closed forms and slow witnesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import timm
import torch
from torch import nn

from audit_core.classifier import Classifier
from models.cards import FeatureLayer, ModelCard

CLASSES = ("none", "ring", "scratch")
CPU = torch.device("cpu")
torch.set_num_threads(1)  # on tensors this small, threads only wait for each other


def card(
    name: str, size: int, channels: int, layers: tuple[FeatureLayer, ...], readout: str, attention: str
) -> ModelCard:
    return ModelCard(
        name=name, family="tiny", architecture=name, input_size=(size, size), channels=channels, encoding="pixels",
        mean=(0.3, 0.4, 0.5)[:channels], std=(0.5, 0.4, 0.3)[:channels], classes=CLASSES, feature_layers=layers,
        readout=readout, attention=attention, parameters=0,
    )


def seeded(build: Callable[[], nn.Module], seed: int, gain: float) -> nn.Module:
    """A module in eval mode whose outputs differ between images; global generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        module = build().eval()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            width = gain / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.2
            shift = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.9 else 0.0
            parameter.copy_(shift + width * torch.randn(parameter.shape, generator=rng))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=rng))
    return module


def vit(seed: int = 0, depth: int = 2, heads: int = 3) -> tuple[ModelCard, nn.Module]:
    """Class token, 4x4 patches of 4 pixels; the even head count 2 is allowed too."""
    def build() -> nn.Module:
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=16, patch_size=4, in_chans=1, num_classes=3, embed_dim=24, depth=depth,
            num_heads=heads,
        )

    layers = tuple(FeatureLayer(f"block{i + 1}", f"blocks.{i}", "tokens", (4, 4), 1) for i in range(depth - 1))
    last = FeatureLayer(f"block{depth}", f"blocks.{depth - 1}.norm1", "tokens", (4, 4), 1)
    return card("tiny-vit", 16, 1, (*layers, last), "CLS token", "global"), seeded(build, seed, 1.5)


def swin(seed: int = 1) -> tuple[ModelCard, nn.Module]:
    def build() -> nn.Module:
        return timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=16, window_size=2, in_chans=1, num_classes=3, embed_dim=12,
            depths=(1, 1), num_heads=(1, 2),
        )

    layers = tuple(FeatureLayer(f"stage{i + 1}", f"layers.{i}", "NHWC", (4 >> i, 4 >> i)) for i in range(2))
    return card("tiny-swin", 16, 1, layers, "global average pool", "windowed"), seeded(build, seed, 1.5)


class Cnn(nn.Module):
    """Two stages of convolution, batch norm and ReLU, then the average of the last map and a linear head."""

    def __init__(self, channels: int, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu2 = nn.ReLU(inplace=inplace)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu2(self.conv2(self.relu1(self.norm(self.conv1(x)))))
        return self.head(self.drop(x.mean((2, 3))))


def cnn(seed: int = 2, size: int = 16, channels: int = 1, inplace: bool = False) -> tuple[ModelCard, nn.Module]:
    layers = (
        FeatureLayer("stage1", "relu1", "NCHW", (size, size)),
        FeatureLayer("stage2", "conv2" if inplace else "relu2", "NCHW", (size // 2, size // 2)),
    )
    made = card("tiny-cnn", size, channels, layers, "global average pool", "none")
    return made, seeded(lambda: Cnn(channels, inplace), seed, 1.5)


def linear(seed: int = 3, size: int = 8, channels: int = 1) -> tuple[ModelCard, nn.Module]:
    """Logits are additive in the pixels, so every curve has a closed form."""
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 3))

    return card("tiny-linear", size, channels, (), "unknown", "none"), seeded(build, seed, 3.0)


MODELS: dict[str, Callable[[], tuple[ModelCard, nn.Module]]] = {"vit": vit, "swin": swin, "cnn": cnn}


def classifier(pair: tuple[ModelCard, nn.Module], **changes: object) -> Classifier:
    """A classifier on the CPU; ``changes`` are fields of the card."""
    return Classifier(replace(pair[0], **changes), pair[1], CPU)


def images(n: int = 3, size: int = 16, channels: int = 1, seed: int = 5) -> torch.Tensor:
    """Float32 (n, channels, size, size) in [0, 1): smooth blobs with noise, different for every image."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=rng)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return 0.8 * smooth + 0.2 * torch.rand(n, channels, size, size, generator=rng)
