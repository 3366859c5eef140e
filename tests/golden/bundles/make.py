"""MONAI bundles with random weights, good and bad, and what MONAI predicts with the good ones.

Made with: monai 1.6.1, torch 2.15.0, nibabel 5.4.2.
Run: python make.py [CASE]...
`{case}/` is a bundle (configs, models) and `{case}.safetensors` what MONAI's ConfigParser made of it on `image.nii.gz`:
the network's input, its logits on that grid, and the label map on the grid of the file (outputs that may overlap are
painted in the order of `PAINTED`). `slices/` has its configuration in YAML, and `swinunetr.zip` is a zipped bundle whose
weights repeat themselves, so that it is small. `bad/` holds checkpoints that
must be refused.
"""
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate
from safetensors.torch import save_file

HERE = Path(__file__).parent
KEY = "@image_key"


def image():
    """CT-like, anisotropic, columns towards the left and rows to the back, as dcm2niix does not write it."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(5)
    shape = (22, 19, 9)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    r = np.sqrt(sum(g**2 for g in grid))
    noise = gaussian_filter(rng.normal(0, 1, shape), 1.2)
    hu = np.where(r < 0.95, 900.0, -1000.0)
    hu = np.where(r < 0.8, 35 + 40 * noise / noise.std(), hu)
    affine = np.array([[-1.4, 0, 0, 9.0], [0, -1.3, 0, 4.0], [0, 0, 3.1, -20.0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), affine), HERE / "image.nii.gz")


def config(network, pixdim, intensity, roi, inferer, softmax=True, axcodes="RAS", **more):
    before = [{"_target_": "LoadImaged", "keys": KEY}, {"_target_": "EnsureChannelFirstd", "keys": KEY}]
    if axcodes:
        # The default labels of MONAI 1.6.1 ask the file for its space; RAS files are what they are.
        before.append({"_target_": "Orientationd", "keys": KEY, "axcodes": axcodes, "labels": None})
    spacing = {"_target_": "Spacingd", "keys": KEY, "pixdim": pixdim, "mode": "bilinear"}
    before += intensity[:1] if more.get("scale_first") else []
    before.append(spacing)
    before += intensity[1:] if more.get("scale_first") else intensity
    before.append({"_target_": "EnsureTyped", "keys": KEY})
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": KEY,
              "nearest_interp": False, "to_tensor": True}
    after = [{"_target_": "Activationsd", "keys": "pred", "softmax": True}] if softmax else []
    decide = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    if "threshold" in more:
        after = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]
        decide = {"_target_": "AsDiscreted", "keys": "pred", "threshold": more["threshold"]}
    after = [invert, *after] if more.get("invert_first") else [*after, invert]
    after += [decide,
              {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "_disabled_": True}]
    return {
        "imports": ["$import glob"], "image_key": "image", "output_dir": "$@bundle_root + '/eval'", "bundle_root": ".",
        "device": "$torch.device('cpu')", "network_def": network, "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": roi, "sw_batch_size": 2, **inferer},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "run": ["$@evaluator.run()"],
    }


def scale(clip=True):
    return {"_target_": "ScaleIntensityRanged", "keys": KEY, "a_min": -100, "a_max": 200, "b_min": 0.0, "b_max": 1.0, "clip": clip}


UNET = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 8],
        "strides": [2, 2], "num_res_units": 1, "norm": "batch"}
DYNUNET = {"_target_": "monai.networks.nets.DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
           "kernel_size": [3, [3, 3, 1], 3], "strides": [1, [2, 2, 1], 2], "upsample_kernel_size": [[2, 2, 1], 2],
           "filters": [4, 6, 8], "deep_supervision": True, "deep_supr_num": 1}
SEGRESNET = {"_target_": "SegResNet", "blocks_down": [1, 1], "blocks_up": [1], "init_filters": 8, "in_channels": 1,
             "out_channels": 3, "dropout_prob": 0.2, "norm": ["GROUP", {"num_groups": 4}]}
UNET_2D = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 8],
           "strides": [2, 2], "num_res_units": 1}
DYNUNET_2D = {"_target_": "DynUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "kernel_size": [3, 3, 3],
              "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 6, 8]}
SWINUNETR = {"_target_": "monai.networks.nets.SwinUNETR", "in_channels": 1, "out_channels": 2, "feature_size": 12,
             "depths": [1, 1, 1, 1], "num_heads": [1, 2, 3, 4]}
FOREGROUND = {"_target_": "CropForegroundd", "keys": KEY, "source_key": KEY}
PAD = {"_target_": "SpatialPadd", "keys": KEY}
PAINTED = {"regions": [1, 0, 2]}
CASES = {
    # Constant weights, softmax before the way back, finer along one axis and coarser along another.
    "unet": lambda: config(UNET, [1.0, 1.6, 2.0], [scale()], [16, 16, 8], {"overlap": 0.5}),
    # Gaussian weights, logits on the way back, statistics of what is not zero, left and right exchanged, first voxels.
    "dynunet": lambda: config(
        DYNUNET, [1.5, 1.5, 3.1], [{"_target_": "NormalizeIntensityd", "keys": KEY, "nonzero": True}], [8, 8, 8],
        {"overlap": 0.6, "mode": "gaussian"}, softmax=False, axcodes="LPS"),
    # No orientation: the axes of the file; a volume smaller than the tile; scaled before the resampling.
    "segresnet": lambda: config(
        SEGRESNET, [1.4, 1.3, 2.4], [scale(False), {"_target_": "NormalizeIntensityd", "keys": KEY}], [32, 16, 16],
        {"mode": "gaussian", "sigma_scale": 0.2}, axcodes=None, scale_first=True),
    # Slice by slice as they lie, cut to what is not air before they are resampled, in YAML. Cut afterwards, MONAI gives a
    # plane that was cut away the labels of its neighbour, whose share there is a rounding error of 0.
    "slices": lambda: config(
        UNET_2D, [1.2, 1.3, -1.0], [FOREGROUND, scale()], [12, 8], {"_target_": "SliceInferer", "spatial_dim": 2},
        scale_first=True),
    # Slice by slice from the side, one output, cut with more around it than there is, and then filled up behind.
    "binary": lambda: config(
        DYNUNET_2D, [1.5, 1.4, 2.8],
        [scale(), FOREGROUND | {"margin": [1, 2, 0], "k_divisible": [4, 4, 1]},
         PAD | {"spatial_size": [28, -1, 16], "method": "end"}],
        [8, 8], {"_target_": "SliceInferer", "spatial_dim": 0, "mode": "gaussian", "overlap": 0.5}, axcodes="LPS",
        threshold=0.4),
    # Outputs that overlap, decided after the way back; filled up on both sides.
    "regions": lambda: config(
        UNET, [1.4, 1.6, 3.0],
        [{"_target_": "NormalizeIntensityd", "keys": KEY, "channel_wise": True}, PAD | {"spatial_size": [29, 16, 12], "value": -0.5}],
        [16, 16, 8], {"overlap": 0.5}, threshold=0.5, invert_first=True),
    "swinunetr": lambda: config(
        SWINUNETR, [1.0, 1.6, 0.7], [scale()], [64, 32, 32], {"overlap": 0.5, "mode": "gaussian"}),
}


SOME = torch.randn(1009, generator=torch.Generator().manual_seed(1))


def shake(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.dtype.is_floating_point:
                continue
            noise = torch.randn(value.shape, generator=generator)
            if "swin" in type(network).__name__.lower():
                # The same thousand numbers again and again, so that a zip is small.
                noise = SOME[torch.arange(value.numel()) % len(SOME)].view(value.shape)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif value.ndim > 1:
                value.copy_(noise * (2 / value[0].numel()) ** 0.5)
            else:
                value.copy_((1 if name.endswith("weight") else 0) + 0.2 * noise)
    return network.eval()


def run(name, make):
    folder = HERE / name
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    content = make()
    if name == "slices":
        inference = folder / "configs/inference.yaml"
        inference.write_text(yaml.safe_dump(content, sort_keys=False))
    else:
        inference = folder / "configs/inference.json"
        inference.write_text(json.dumps(content, indent=1) + "\n")
    outputs = content["network_def"]["out_channels"]
    names = ["bleed", "oedema", "core"] if "threshold" in str(content) else ["background", "bleed", "oedema"]
    channel_def = {str(k): n for k, n in enumerate(names[:outputs])}
    metadata = {
        "version": "0.0.1", "name": f"Tiny {name}", "task": "noise", "monai_version": "1.6.1", "intended_use": "tests | none",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "modality": "CT", "num_channels": 1, "channel_def": {"0": "CT"}}},
            "outputs": {"pred": {"type": "image", "num_channels": outputs, "channel_def": channel_def}}}}
    (folder / "configs/metadata.json").write_text(json.dumps(metadata, indent=1) + "\n")
    parser = ConfigParser()
    parser.read_config(str(inference))
    network = shake(parser.get_parsed_content("network_def"), len(name))
    before, after = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("postprocessing")
    inferer = parser.get_parsed_content("inferer")
    batch = list_data_collate([before({"image": str(HERE / "image.nii.gz")})])

    def predict():
        with torch.no_grad():
            return inferer(batch["image"], network)

    # Balanced classes, so that the label map has borders to agree on.
    bias = [v for k, v in network.state_dict().items() if k.endswith("bias") and v.shape == (outputs,)]
    bias = [v for k, v in network.state_dict().items() if k.endswith("conv.bias") and v.shape == (outputs,)][-1]
    bias.sub_(predict().mean(dim=(0, 2, 3, 4)).as_tensor())
    logits = predict()
    torch.save({"model": network.state_dict()} if name == "segresnet" else network.state_dict(), folder / "models/model.pt")
    batch["pred"] = logits.clone()
    result = after(decollate_batch(batch)[0])["pred"]
    labels = np.asarray(result[0]).astype(np.uint8)
    for k in PAINTED.get(name, []):
        labels = np.where(np.asarray(result[k]) > 0, k + 1, labels if k != PAINTED[name][0] else 0).astype(np.uint8)
    print(name, tuple(batch["image"].shape), "labels", np.bincount(labels.ravel()), "logits", float(logits.abs().max()))
    save_file({"input": batch["image"].as_tensor().contiguous(), "logits": logits.as_tensor().contiguous(),
               "labels": torch.from_numpy(np.ascontiguousarray(labels))}, str(HERE / f"{name}.safetensors"))
    if name == "swinunetr":
        with zipfile.ZipFile(HERE / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            for file in ("configs/inference.json", "configs/metadata.json", "models/model.pt"):
                packed.write(folder / file, f"{name}/{file}")
        shutil.rmtree(folder)
    return network


class Shell:
    """What a malicious checkpoint is: an object that says how to be rebuilt."""

    def __reduce__(self):
        return (os.system, ("touch /tmp/a-bundle-was-run",))


def bad(network):
    (HERE / "bad").mkdir(exist_ok=True)
    first = "model.0.conv.unit0.conv.weight"
    state = {k: v.clone() for k, v in network.state_dict().items()}
    assert first in state, list(state)[:4]
    nan = {k: v.clone() for k, v in state.items()}
    nan[first].view(-1)[5] = float("nan")
    for name, content in {
        "malicious.pt": {"state_dict": state, "hook": Shell()},
        "nan.pt": nan,
        "shape.pt": state | {first: torch.zeros(4, 2, 3, 3, 3)},
        "missing.pt": {k: v for k, v in state.items() if k != first},
        "extra.pt": state | {"attention.weight": torch.zeros(2)},
        "whole.pt": network,
        "optimiser.pt": {"epoch": 3},
    }.items():
        torch.save(content, HERE / "bad" / name)


if __name__ == "__main__":
    image()
    networks = {name: run(name, make) for name, make in CASES.items() if name in sys.argv[1:] or len(sys.argv) == 1}
    if "unet" in networks:
        bad(networks["unet"])
