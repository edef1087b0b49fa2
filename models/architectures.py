"""The zoo: four wafer families at full and compact size, and networks for small pictures, each with its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import timm
from torch import nn

from models.cards import FeatureLayer
from models.nets.resnet_cbam import ResNet18Cbam
from models.nets.small_resnet import SmallResNet, resnet50_pictures


@dataclass(frozen=True)
class Recipe:
    """How a family is trained; the ``paper`` recipes are Table S1a of arXiv 2605.14255."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    schedule: str  # "plateau" (halve when validation loss stalls for 5 epochs), "cosine" or "one-cycle"
    patience: int  # epochs without a better score before stopping
    metric: str  # validation score that chooses the checkpoint: "balanced_accuracy", "macro_f1" or "accuracy"
    class_weights: bool = True  # n / (K * n_c) in the loss
    sampling: str = "natural"  # or "square-root": class c is drawn in proportion to sqrt(n_c)
    # "paper"; "wafer": quarter turns, flips, any rotation, shifts, die flips; pictures: "shift" or "shift+flip"
    augmentation: str = "paper"
    averaging: float = 0.0  # decay of the exponential moving average of the weights; 0 = off
    label_smoothing: float = 0.0
    epoch_images: int = 0  # images drawn per epoch; 0 = all of them
    token_dropout: float = 0.0  # share of patch tokens left out in training, except in the last tenth


CNN_PAPER = Recipe("adam", 1e-3, 0.0, 32, 50, "plateau", 10, "balanced_accuracy")
TRANSFORMER_PAPER = Recipe("adamw", 3e-4, 0.05, 64, 100, "cosine", 20, "macro_f1")


@dataclass(frozen=True)
class Architecture:
    """A definition in the zoo: how to build it and where its features are read, at ``input_size`` pixels a side."""

    name: str
    family: str
    build: Callable[[int, int], nn.Module]  # (num_classes, in_chans) -> module
    feature_layers: tuple[FeatureLayer, ...]
    readout: str
    attention: str
    narrowed: str  # what is smaller than the full-size definition, in words; "" for full size
    paper: Recipe
    learning_rate: float = 2e-3  # of the ``balanced`` recipe, as is the next; and of the one for pictures
    token_dropout: float = 0.0
    input_size: int = 64


def _vit(dim: int, depth: int, heads: int, dropout: float = 0.0) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_chans: int) -> nn.Module:
        return timm.create_model(
            "vit_tiny_patch16_224",
            pretrained=False,
            img_size=64,
            patch_size=4,
            in_chans=in_chans,
            num_classes=num_classes,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            drop_rate=dropout,
        )

    return build


def _swin(
    dim: int, depths: tuple[int, ...], heads: tuple[int, ...], dropout: float = 0.0
) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_chans: int) -> nn.Module:
        return timm.create_model(
            "swin_tiny_patch4_window7_224",
            pretrained=False,
            img_size=64,
            window_size=4,
            in_chans=in_chans,
            num_classes=num_classes,
            embed_dim=dim,
            depths=depths,
            num_heads=heads,
            drop_rate=dropout,
        )

    return build


def _densenet(growth: int, dropout: float = 0.0) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_chans: int) -> nn.Module:
        return timm.create_model(
            "densenet121",
            pretrained=False,
            in_chans=in_chans,
            num_classes=num_classes,
            growth_rate=growth,
            drop_rate=dropout,
        )

    return build


def _resnet(width: int) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_chans: int) -> nn.Module:
        return ResNet18Cbam(num_classes, in_chans, width=width)

    return build


def _small_resnet(width: int, strides: tuple[int, int, int]) -> Callable[[int, int], nn.Module]:
    def build(num_classes: int, in_chans: int) -> nn.Module:
        return SmallResNet(num_classes, in_chans, width, strides)

    return build


def _vit_layers(depth: int) -> tuple[FeatureLayer, ...]:
    blocks = [FeatureLayer(f"block{i + 1}", f"blocks.{i}", "tokens", (16, 16), 1) for i in range(depth - 1)]
    # The last block's class token alone feeds the head, so its patch outputs get no gradient: read its first norm.
    return (*blocks, FeatureLayer(f"block{depth}", f"blocks.{depth - 1}.norm1", "tokens", (16, 16), 1))


_GRIDS = ((16, 16), (8, 8), (4, 4), (2, 2))
_SWIN_LAYERS = tuple(FeatureLayer(f"stage{i + 1}", f"layers.{i}", "NHWC", g) for i, g in enumerate(_GRIDS))
_RESNET_LAYERS = tuple(FeatureLayer(f"stage{i + 1}", f"cbam{i + 1}", "NCHW", g) for i, g in enumerate(_GRIDS))
_DENSE_LAYERS = tuple(
    FeatureLayer(f"stage{i + 1}", f"features.denseblock{i + 1}", "NCHW", g) for i, g in enumerate(_GRIDS)
)
# For small pictures; as everywhere, features are read on grids of at most a quarter of the input's side.
_PICTURE_ENTRIES = (
    Architecture(
        "digits_resnet",
        "SmallResNet",
        _small_resnet(16, (1, 2, 2)),
        (FeatureLayer("stage1", "block2", "NCHW", (8, 8)), FeatureLayer("stage2", "block3", "NCHW", (4, 4))),
        "global average pool",
        "none",
        "three blocks of widths 16-32-64 for 32x32 pictures (the smallest of its family)",
        CNN_PAPER,
        learning_rate=3e-3,
        input_size=32,
    ),
    Architecture(
        "mnist_resnet",
        "SmallResNet",
        _small_resnet(24, (1, 2, 1)),
        (FeatureLayer("stage1", "block3", "NCHW", (7, 7)),),
        "global average pool",
        "none",
        "three blocks of widths 24-48-96 for 28x28 pictures, last map 7x7",
        CNN_PAPER,
        learning_rate=3e-3,
        input_size=28,
    ),
    Architecture(
        "resnet50_pictures",
        "ResNet50",
        resnet50_pictures,
        tuple(FeatureLayer(f"stage{i + 1}", f"layer{i + 2}", "NCHW", g) for i, g in enumerate(_GRIDS[1:])),
        "global average pool",
        "none",
        "stem 7x7 with max pool -> 3x3 without, for 28 to 32 px pictures (full width and depth)",
        CNN_PAPER,
        learning_rate=1e-3,
        input_size=32,
    ),
)

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry
    for entry in (
        Architecture(
            "vit_tiny",
            "ViT-Tiny",
            _vit(192, 12, 3, 0.3),
            _vit_layers(12),
            "CLS token",
            "global",
            "",
            TRANSFORMER_PAPER,
        ),
        Architecture(
            "vit_tiny_compact",
            "ViT-Tiny",
            _vit(96, 6, 3),
            _vit_layers(6),
            "CLS token",
            "global",
            "embedding 192 -> 96, depth 12 -> 6 (heads 3, patch 4, 16x16 tokens + CLS as at full size)",
            TRANSFORMER_PAPER,
            learning_rate=1e-3,
            token_dropout=0.5,
        ),
        Architecture(
            "swin_tiny",
            "Swin-Tiny",
            _swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.3),
            _SWIN_LAYERS,
            "global average pool",
            "windowed",
            "",
            TRANSFORMER_PAPER,
        ),
        Architecture(
            "swin_tiny_compact",
            "Swin-Tiny",
            _swin(48, (2, 2, 2, 2), (3, 6, 12, 24)),
            _SWIN_LAYERS,
            "global average pool",
            "windowed",
            "embedding 96 -> 48, depths 2-2-6-2 -> 2-2-2-2 (window 4, last stage 2x2 as at full size)",
            TRANSFORMER_PAPER,
            learning_rate=1e-3,
        ),
        Architecture(
            "resnet18_cbam",
            "ResNet18+CBAM",
            _resnet(64),
            _RESNET_LAYERS,
            "global average pool",
            "auxiliary",
            "",
            CNN_PAPER,
        ),
        Architecture(
            "resnet18_cbam_compact",
            "ResNet18+CBAM",
            _resnet(32),
            _RESNET_LAYERS,
            "global average pool",
            "auxiliary",
            "first-stage width 64 -> 32 (two blocks and one CBAM per stage, 2x2 last stage as at full size)",
            CNN_PAPER,
        ),
        Architecture(
            "densenet121",
            "DenseNet121",
            _densenet(32, 0.5),
            _DENSE_LAYERS,
            "global average pool",
            "none",
            "",
            CNN_PAPER,
        ),
        Architecture(
            "densenet121_compact",
            "DenseNet121",
            _densenet(12),
            _DENSE_LAYERS,
            "global average pool",
            "none",
            "growth rate 32 -> 12 (121 layers in blocks of 6-12-24-16, 2x2 last stage as at full size)",
            CNN_PAPER,
        ),
        *_PICTURE_ENTRIES,
    )
}
