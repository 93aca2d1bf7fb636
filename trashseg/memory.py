"""How much of a GPU one training takes: measured, because no formula knows cuDNN's workspaces."""

import numpy as np
import torch

from trashseg.augment import normalize
from trashseg.averaging import build_average
from trashseg.config import TrainConfig
from trashseg.device import (
    Resources,
    autocast,
    compile_network,
    memory_format,
    place,
    set_precision,
)
from trashseg.errors import ResourceError
from trashseg.losses import build_loss
from trashseg.models import build_model
from trashseg.optim import build_optimizer

STEPS = 2  # the optimizer's state comes with the first


def peak_share(config: TrainConfig, classes: int, resources: Resources) -> float:
    """Share (0 to 1) of the GPU's memory at the peak of a training with `config`, on random photos.

    Raises ResourceError where there is no GPU, and torch.OutOfMemoryError where one is too small.
    """
    device = resources.device
    if device.type != "cuda":
        raise ResourceError("a trial's memory can be measured on a GPU only: there is none")
    resources.claim()
    torch.cuda.reset_peak_memory_stats(device)
    set_precision(config)
    model = build_model(config.model, classes, pretrained=False)
    place(model, config, device)
    model.train()
    optimizer = build_optimizer(config.optim, model)
    average = build_average(config.averaging, model, config.epochs)
    compile_network(model, config)
    loss = build_loss(config.loss, np.ones(classes, dtype=np.int64), device)
    size = (config.batch_size, config.data.image_size, config.data.image_size)
    for _ in range(STEPS):
        photos = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8, device=device)
        inputs = normalize(photos, config.data.normalize)
        inputs = inputs.contiguous(memory_format=memory_format(config, device))
        with autocast(config, device):
            logits = model(inputs)
        truth = torch.randint(0, classes, size, device=device)
        torch.autograd.backward(loss(logits.float(), truth))
        optimizer.step()
        if average:
            average.after_step(model)
        optimizer.zero_grad(set_to_none=True)
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) / total
