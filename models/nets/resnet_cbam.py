"""ResNet18 with one CBAM after each of its four stages (Woo et al. 2018, https://arxiv.org/abs/1807.06521)."""

from __future__ import annotations

import torch
from timm.layers.cbam import CbamModule
from torch import nn
from torchvision.models.resnet import BasicBlock


class ResNet18Cbam(nn.Module):
    """Stages of two basic blocks at strides 4, 8, 16, 32; CBAM after each; global average pool; linear head.

    The channel gate uses average *and* max pooling, as the paper's equation says (reduction 16), the spatial
    gate a 7x7 kernel. ``width`` is the first stage's channel count: 64 is ResNet18, less is narrower.
    A 64x64 input gives 16x16, 8x8, 4x4 and 2x2 maps.
    """

    def __init__(self, num_classes: int = 9, in_chans: int = 1, width: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        for stage in range(1, 5):
            stride = 1 if stage == 1 else 2
            setattr(self, f"layer{stage}", _stage(channels[stage - 1], channels[stage], stride))
            setattr(self, f"cbam{stage}", CbamModule(channels[stage], rd_ratio=1 / 16, spatial_kernel_size=7))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, in_chans, h, w) -> logits (n, num_classes)."""
        features = self.stem(images)
        for stage in range(1, 5):
            features = getattr(self, f"cbam{stage}")(getattr(self, f"layer{stage}")(features))
        return self.fc(self.dropout(features.mean(dim=(2, 3))))


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    return nn.Sequential(BasicBlock(channels_in, channels, stride, shortcut), BasicBlock(channels, channels))
