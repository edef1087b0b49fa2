"""Plain residual networks for small pictures (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock


class SmallResNet(nn.Module):
    """A 3x3 stem of stride 2, three residual blocks of two 3x3 convolutions, global average pool, linear head.

    ``width`` is the first block's channel count, doubled by each block. ``strides`` of the blocks: with (1, 2, 2) a
    32x32 input gives 16x16, 8x8 and 4x4 maps; with (1, 2, 1) a 28x28 input gives 14x14, 7x7 and 7x7.
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 1, width: int = 16, strides: tuple[int, int, int] = (1, 2, 2)
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.block1 = _block(width, width, strides[0])
        self.block2 = _block(width, 2 * width, strides[1])
        self.block3 = _block(2 * width, 4 * width, strides[2])
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, in_chans, h, w) -> logits (n, num_classes)."""
        features = self.block3(self.block2(self.block1(self.stem(images))))
        return self.fc(features.mean(dim=(2, 3)))


def resnet50_pictures(num_classes: int, in_chans: int) -> nn.Module:
    """ResNet-50 of full width and depth behind a 3x3 stem of stride 2 without max pooling.

    A 32x32 input gives 16x16, 8x8, 4x4 and 2x2 maps; the usual stem would leave 1x1 of it.
    """
    model = timm.create_model("resnet50", pretrained=False, num_classes=num_classes, in_chans=in_chans)
    model.conv1 = nn.Conv2d(in_chans, 64, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _block(channels_in: int, channels: int, stride: int) -> BasicBlock:
    """A basic block; its shortcut is projected where grid or channels change."""
    if stride == 1 and channels_in == channels:
        return BasicBlock(channels, channels)
    shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
    return BasicBlock(channels_in, channels, stride, shortcut)
