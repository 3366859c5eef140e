"""Checkpoints as nnU-Net v2 writes them, good and bad, of a network of a few hundred numbers.

`results/` is a results folder (plans.json, dataset.json, fold_0/checkpoint_final.pth); `expected.safetensors` holds an
input and the logits of dynamic_network_architectures on it. `old_format.pth` is the same checkpoint as torch wrote it
before version 1.6. `bad/` holds what must be refused.

Made with: torch 2.15.0, dynamic_network_architectures 0.4.4, numpy 2.4.6, nnunetv2 2.8.1 (names of keys).
Run: python make.py
"""

import json
import os
import pickle
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
KWARGS = {
    "n_stages": 2,
    "features_per_stage": [2, 4],
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
PLANS = {
    "dataset_name": "Dataset900_Tiny",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [5.0, 1.0, 1.0],
    "original_median_shape_after_transp": [20, 64, 64],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16],
            "median_image_size_in_voxels": [64.0, 64.0],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": RESAMPLING,
            "resampling_fn_seg_kwargs": RESAMPLING | {"is_seg": True, "order": 1},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": RESAMPLING | {"order": 1},
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": KWARGS,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
            "batch_dice": True,
        }
    },
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"max": 300.0, "mean": 42.0, "median": 50.0, "min": 0.0, "percentile_00_5": 5.0, "percentile_99_5": 75.0, "std": 25.0}
    },
}
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "haemorrhage": 1},
    "numTraining": 5,
    "file_ending": ".nii.gz",
    "description": "noise | made for tests",
}


class Shell:
    """What a malicious checkpoint is: an object that says how to be rebuilt."""

    def __reduce__(self):
        return (os.system, ("touch /tmp/a-checkpoint-was-run",))


def main():
    for folder in ("results/fold_0", "bad"):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    arguments = KWARGS | {"conv_op": nn.Conv2d, "norm_op": nn.InstanceNorm2d, "nonlin": nn.LeakyReLU}
    network = PlainConvUNet(input_channels=1, num_classes=2, deep_supervision=True, **arguments)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn(value.shape))
    network.eval()
    good = {
        "network_weights": network.state_dict(),
        "optimizer_state": torch.optim.SGD(network.parameters(), 0.01).state_dict(),
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch_end_timestamps": [1.5]},
        "_best_ema": np.float32(0.5),
        "current_epoch": 1,
        "init_args": {"plans": PLANS, "configuration": "2d", "fold": 0, "dataset_json": DATASET, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }
    (HERE / "results/plans.json").write_text(json.dumps(PLANS, indent=1) + "\n")
    (HERE / "results/dataset.json").write_text(json.dumps(DATASET, indent=1) + "\n")
    path = HERE / "results/fold_0/checkpoint_final.pth"
    torch.save(good, path)
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        save_file({"input": x, "logits": network(x)[0].contiguous()}, str(HERE / "expected.safetensors"))

    def bad(name, change):
        checkpoint = deepcopy(good)
        checkpoint = change(checkpoint) or checkpoint
        torch.save(checkpoint, HERE / "bad" / name)

    first = "encoder.stages.0.0.convs.0.conv.weight"
    bad("malicious.pth", lambda c: c.update(logging=Shell()))
    bad("class.pth", lambda c: c.update(logging=Path("x")))
    bad("nan.pth", lambda c: c["network_weights"][first].view(-1)[3].fill_(float("nan")) and None)
    bad("shape.pth", lambda c: c["network_weights"].update({"decoder.seg_layers.0.weight": torch.zeros(3, 2, 1, 1)}))
    bad("integers.pth", lambda c: c["network_weights"].update({"decoder.seg_layers.0.bias": torch.zeros(2, dtype=torch.int64)}))
    bad("missing.pth", lambda c: c["network_weights"].pop("decoder.seg_layers.0.bias") is None)
    bad("extra.pth", lambda c: c["network_weights"].update({"attention.weight": torch.zeros(1)}))
    bad("two_truths.pth", lambda c: c["network_weights"].update({f"decoder.{first}": torch.zeros(2, 1, 3, 3)}))
    bad("expanded.pth", lambda c: c["network_weights"].update({first: torch.zeros(1).expand(2, 1, 3, 3)}))
    bad("no_weights.pth", lambda c: {"state_dict": c["network_weights"]})
    bad("trainer.pth", lambda c: c.update(trainer_name="nnUNetTrainerMedNeXt"))
    torch.save(good, HERE / "old_format.pth", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), str(HERE / "bad/script.pth"))
    # The same archive, inflated on reading: how a bomb would come.
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(HERE / "bad/compressed.pth", "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    # A pickle that claims more numbers than its storage has.
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(HERE / "bad/storage.pth", "w") as out:
        for name in source.namelist():
            data = source.read(name)
            out.writestr(name, data[:8] if name.endswith("/data/0") else data)
    # Postprocessing as nnU-Net pickles it; the function is named, not run.
    from nnunetv2.postprocessing.remove_connected_components import (
        remove_all_but_largest_component_from_segmentation as keep,
    )

    for name, function in (("postprocessing.pkl", keep), ("bad/postprocessing.pkl", os.system)):
        with open(HERE / name, "wb") as f:
            pickle.dump(([function], [{"labels_or_regions": (1,)}]), f)
    for file in sorted(HERE.rglob("*.p*")):
        print(file.relative_to(HERE), file.stat().st_size)


if __name__ == "__main__":
    main()
