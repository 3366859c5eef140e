"""Makes layers.safetensors: every layer of `src/nn` on a small random input, with the gradients of a weighted sum, by PyTorch.

Written for torch 2.15.0 and safetensors 0.8.0, on a CPU, in f32 from f64: python layers.py
A case NAME holds NAME.x, NAME.y, NAME.scale (what the output is weighed with), NAME.gx and its parameters NAME.p.* with gradients NAME.g.*.
The layers' arguments are repeated in `src/nn/tests.rs`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(7)
D3, D2 = (2, 6, 7, 8), (2, 9, 11)
CASES = {
    "conv3d": (nn.Conv3d(5, 19, (1, 3, 5), (2, 1, 3), (0, 2, 1), (1, 2, 1)), (2, 5, 6, 9, 14)),
    "conv3d_plain": (nn.Conv3d(17, 3, 3, 1, 1, bias=False), (1, 17, 5, 6, 7)),
    "conv3d_groups": (nn.Conv3d(6, 12, 3, 2, 1, groups=3), (1, 6, 5, 6, 7)),
    "conv2d": (nn.Conv2d(3, 33, 3, 2, 1), (2, 3, 9, 12)),
    "conv2d_uneven": (nn.Conv2d(20, 4, (5, 1), (1, 2), (2, 0)), (1, 20, 9, 11)),
    "transpose3d_double": (nn.ConvTranspose3d(18, 5, 2, 2), (1, 18, 3, 4, 5)),
    "transpose3d": (nn.ConvTranspose3d(4, 17, (3, 1, 4), (2, 1, 3), (1, 0, 1), (1, 0, 2)), (2, 4, 4, 3, 5)),
    "transpose2d": (nn.ConvTranspose2d(16, 3, 3, 2, 1, 1, bias=False), (1, 16, 5, 6)),
    "instance": (nn.InstanceNorm3d(18, affine=True), (2, 18, 4, 5, 6)),
    "instance_bare": (nn.InstanceNorm2d(5), (2, 5, 6, 7)),
    "group": (nn.GroupNorm(3, 18), (2, 18, 4, 5, 6)),
    "batch": (nn.BatchNorm3d(18), (2, 18, 3, 4, 5)),
    "layer": (nn.LayerNorm(12), (2, 7, 12)),
    "relu": (nn.ReLU(), (2, 18, 4, 5)),
    "leaky": (nn.LeakyReLU(0.01), (2, 18, 4, 5)),
    "prelu": (nn.PReLU(), (2, 18, 3, 4, 5)),
    "prelu_each": (nn.PReLU(18), (2, 18, 3, 4, 5)),
    "gelu": (nn.GELU(), (2, 3, 4, 5)),
    "sigmoid": (nn.Sigmoid(), (2, 3, 4, 5)),
    "max3d": (nn.MaxPool3d((1, 3, 2), (1, 2, 2), (0, 1, 1)), (2, 3, 5, 7, 8)),
    "max2d": (nn.MaxPool2d(2), (2, 18, 7, 8)),
    "average3d": (nn.AvgPool3d((1, 3, 2), (1, 2, 2), (0, 1, 1)), (2, 18, 5, 7, 8)),
    "nearest3d": (nn.Upsample(scale_factor=(1, 2, 3)), (1, 17, 3, 4, 5)),
    "trilinear": (nn.Upsample(scale_factor=2, mode="trilinear"), (1, 17, 3, 4, 5)),
    "trilinear_corners": (nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True), (1, 3, 3, 4, 5)),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 3, 4, 5)),
}

tensors = {}
for name, (layer, shape) in CASES.items():
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    if name == "batch":
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        layer.eval()
        tensors[f"{name}.p.running_mean"], tensors[f"{name}.p.running_var"] = layer.running_mean, layer.running_var
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    scale = torch.randn_like(y)
    (y * scale).sum().backward()
    tensors |= {f"{name}.x": x, f"{name}.y": y, f"{name}.scale": scale, f"{name}.gx": x.grad}
    for key, parameter in layer.named_parameters():
        tensors |= {f"{name}.p.{key}": parameter, f"{name}.g.{key}": parameter.grad}

tensors = {key: value.detach().float().contiguous().clone() for key, value in tensors.items()}
save_file(tensors, Path(__file__).with_suffix(".safetensors"), {"torch": torch.__version__})
