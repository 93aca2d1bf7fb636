"""FCN-8s (Long et al. 2015): class scores at strides 32, 16 and 8, added up on the way to full size.

The layers are those of the 2021 team's baseline (bcaitech1/p3-ims-obd-savetheearth, recycle_model.py):
its fc6 is a 1x1 convolution where the paper has 7x7, and its dropout drops whole channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import get_encoder
from segmentation_models_pytorch.encoders.vgg import VGGEncoder
from torch import Tensor, nn

HIDDEN = 4096  # channels of fc6 and fc7


class FCN8s(nn.Module):
    """(N, 3, S, S) float to logits (N, classes, S, S), S a multiple of 32.

    On VGG the scores are taken after pool3, pool4 and pool5, as in the paper; on any other encoder of
    smp or timm from its features of stride 8, 16 and 32.
    """

    def __init__(
        self, encoder_name: str, encoder_weights: str | None, classes: int, **options: Any
    ) -> None:
        """`options` are a timm encoder's own."""
        super().__init__()
        self.encoder = get_encoder(encoder_name, weights=encoder_weights, **options)
        channels = list(self.encoder.out_channels)
        if isinstance(self.encoder, VGGEncoder):
            channels[3], channels[4] = channels[2], channels[3]
        self.decoder = FCNDecoder((channels[3], channels[4], channels[5]), classes)
        self.segmentation_head = upsampling(classes, factor=8)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        if isinstance(self.encoder, VGGEncoder):  # smp gives what goes into a pooling layer
            features[3], features[4] = (F.max_pool2d(features[level], 2) for level in (2, 3))
        scores = self.decoder(features[3], features[4], features[5])  # (N, classes, S/8, S/8)
        logits: Tensor = self.segmentation_head(scores)
        return logits


class FCNDecoder(nn.Module):
    """Features of stride 8, 16 and 32 with `channels` each to class scores of stride 8."""

    def __init__(self, channels: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.fc6 = _fully_convolutional(channels[2])
        self.fc7 = _fully_convolutional(HIDDEN)
        self.score8, self.score16, self.score32 = (
            nn.Conv2d(width, classes, kernel_size=1) for width in (*channels[:2], HIDDEN)
        )
        self.up32 = upsampling(classes, factor=2)
        self.up16 = upsampling(classes, factor=2)

    def forward(self, stride8: Tensor, stride16: Tensor, stride32: Tensor) -> Tensor:
        scores = self.up32(self.score32(self.fc7(self.fc6(stride32))))
        scores = self.up16(scores + self.score16(stride16))
        return torch.add(scores, self.score8(stride8))


def _fully_convolutional(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, HIDDEN, kernel_size=1), nn.ReLU(inplace=True), nn.Dropout2d(0.5)
    )


def upsampling(classes: int, factor: int) -> nn.ConvTranspose2d:
    """A learned enlargement by an even `factor` that starts as the bilinear one, class by class."""
    size = 2 * factor
    layer = nn.ConvTranspose2d(classes, classes, size, stride=factor, padding=factor // 2)
    distance = (torch.arange(size) - (factor - 0.5)).abs() / factor
    kernel = torch.outer(1 - distance, 1 - distance)  # (size, size)
    with torch.no_grad():
        layer.weight.zero_()  # (from class, to class, size, size)
        layer.weight[range(classes), range(classes)] = kernel
    return layer
