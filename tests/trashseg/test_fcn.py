"""FCN-8s: the layers of the 2021 baseline, and how scores become full size."""

import pytest
import torch
from torch import nn

from trashseg.fcn import FCN8s, upsampling


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def baseline() -> FCN8s:
    return FCN8s("vgg16", None, classes=12)


def test_the_baseline_has_the_parameters_of_the_teams_network(baseline: FCN8s) -> None:
    # VGG16's 13 convolutions (torchvision): 14 714 688. fc6: 512 * 4096 + 4096 = 2 101 248, fc7:
    # 4096 * 4096 + 4096 = 16 781 312. Scores of 12 classes: 256 * 12 + 12 = 3084,
    # 512 * 12 + 12 = 6156, 4096 * 12 + 12 = 49 164. Twice 4x4 upsampling: 12 * 12 * 16 + 12 = 2316;
    # once 16x16: 12 * 12 * 256 + 12 = 36 876.
    assert parameters(baseline.encoder) == 14_714_688
    scores = 3084 + 6156 + 49_164 + 2 * 2316
    assert parameters(baseline.decoder) == 2_101_248 + 16_781_312 + scores
    assert parameters(baseline.segmentation_head) == 36_876


def test_on_vgg_the_scores_are_taken_after_the_pooling_layers(baseline: FCN8s) -> None:
    seen: list[torch.Tensor] = []
    hook = baseline.decoder.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        baseline.eval()(images)
        x, pooled = images, []
        for layer in baseline.encoder.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(x)
    hook.remove()
    assert [tuple(x.shape) for x in seen] == [(1, 256, 8, 8), (1, 512, 4, 4), (1, 512, 2, 2)]
    for given, pool in zip(seen, pooled[2:], strict=True):
        torch.testing.assert_close(given, pool)


def test_another_encoder_gives_its_features_of_stride_8_16_and_32() -> None:
    model = FCN8s("resnet18", None, classes=3).eval()
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert [tuple(x.shape) for x in seen] == [(1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]


def test_upsampling_starts_as_the_bilinear_one_class_by_class() -> None:
    layer = upsampling(classes=2, factor=2)
    # Four taps at -1.5, -0.5, 0.5, 1.5 input halves: 1 - 1.5/2 = 0.25 and 1 - 0.5/2 = 0.75.
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(layer.weight[0, 0], torch.outer(row, row))
    torch.testing.assert_close(layer.weight[1, 1], torch.outer(row, row))
    assert not layer.weight[0, 1].any()
    assert not layer.weight[1, 0].any()


@pytest.mark.parametrize("factor", [2, 8])
def test_upsampling_leaves_a_flat_map_flat_but_for_its_rim(factor: int) -> None:
    layer = upsampling(classes=3, factor=factor)
    with torch.no_grad():
        layer.bias.zero_()
        large = layer(torch.ones(1, 3, 5, 5))
    assert large.shape == (1, 3, 5 * factor, 5 * factor)
    inside = large[:, :, factor:-factor, factor:-factor]
    torch.testing.assert_close(inside, torch.ones_like(inside))
