"""Cascades of nnU-Net v2 with random weights: results folders of both stages, and what nnU-Net predicts with them.

Made with nnunetv2 2.8.1, torch 2.15.0, dynamic-network-architectures 0.4.4, batchgenerators 0.25.5, scipy 1.17.1:
    python make_cascade.py
`cascade/{case}/` holds the two folders, and `expected.safetensors`: the image, the label map of the first stage, the
input of the second (image and one-hot map), its logits (tiles summed in single precision, as in make.py) and its map.
nnU-Net's predictor reads the folders; its preprocessor, sliding window and export run.
"""
import json
from pathlib import Path

import numpy as np
import torch
from make import CT, image, weights
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from safetensors.torch import save_file

HERE = Path(__file__).parent / "cascade"
CASES = {
    # Transposed axes, zeros around, statistics within the mask, two folds of the first stage, ties at halved voxels.
    "labels": dict(
        shape=(9, 15, 17), spacing=(2.0, 1.0, 1.2), border=True, transpose=(0, 2, 1), scheme="ZScoreNormalization",
        mask=True, labels=dict(background=0, bleed=1, oedema=2), folds=2, mirror=(0, 1),
        low=dict(spacing=(4.0, 2.4, 2.0), patch=(4, 8, 8), strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (3, 3, 3))),
        full=dict(spacing=(1.0, 0.8, 0.5), patch=(8, 16, 16), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3))),
    ),
    # Coarse slices treated apart, regions whose values are fewer than the labels.
    "regions": dict(
        shape=(7, 20, 18), spacing=(5.0, 1.0, 1.0), border=False, transpose=(0, 1, 2), scheme="CTNormalization",
        mask=False, labels=dict(background=0, whole=[1, 2], core=[2]), order=[1, 2], folds=1, mirror=None,
        low=dict(spacing=(5.0, 2.0, 2.0), patch=(4, 8, 8), strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (3, 3, 3))),
        full=dict(spacing=(4.0, 1.2, 1.3), patch=(8, 16, 16), strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (3, 3, 3))),
    ),
}


def configuration(case, part):
    resampling = lambda order: dict(is_seg=False, order=order, order_z=0, force_separate_z=None)
    stages = len(part["strides"])
    arch = dict(
        n_stages=stages, features_per_stage=[4 * 2**i for i in range(stages)], conv_op="torch.nn.modules.conv.Conv3d",
        kernel_sizes=[list(k) for k in part["kernels"]], strides=[list(s) for s in part["strides"]],
        n_conv_per_stage=[1] * stages, n_conv_per_stage_decoder=[1] * (stages - 1), conv_bias=True,
        norm_op="torch.nn.modules.instancenorm.InstanceNorm3d", norm_op_kwargs=dict(eps=1e-5, affine=True),
        dropout_op=None, dropout_op_kwargs=None, nonlin="torch.nn.LeakyReLU", nonlin_kwargs=dict(inplace=True))
    return dict(
        data_identifier="x", preprocessor_name="DefaultPreprocessor", batch_size=2, patch_size=list(part["patch"]),
        median_image_size_in_voxels=[8.0, 16.0, 16.0], spacing=list(part["spacing"]),
        normalization_schemes=[case["scheme"]], use_mask_for_norm=[case["mask"]],
        resampling_fn_data="resample_data_or_seg_to_shape", resampling_fn_seg="resample_data_or_seg_to_shape",
        resampling_fn_probabilities="resample_data_or_seg_to_shape", resampling_fn_data_kwargs=resampling(3),
        resampling_fn_seg_kwargs={**resampling(1), "is_seg": True}, resampling_fn_probabilities_kwargs=resampling(1),
        batch_dice=False,
        architecture=dict(network_class_name="dynamic_network_architectures.architectures.unet.PlainConvUNet",
                          arch_kwargs=arch, _kw_requires_import=["conv_op", "norm_op", "dropout_op", "nonlin"]))


def plans_of(case):
    forward = list(case["transpose"])
    full = configuration(case, case["full"])
    return dict(
        dataset_name="Dataset901_Cascade", plans_name="nnUNetPlans", image_reader_writer="SimpleITKIO",
        transpose_forward=forward, transpose_backward=[forward.index(a) for a in range(3)],
        configurations={
            "3d_lowres": {**configuration(case, case["low"]), "next_stage": "3d_cascade_fullres"},
            "3d_fullres": full,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        label_manager="LabelManager", experiment_planner_used="ExperimentPlanner",
        original_median_spacing_after_transp=[1.0, 1.0, 1.0], original_median_shape_after_transp=[8, 16, 16],
        foreground_intensity_properties_per_channel={"0": CT})


def logits_of(folder, name, data, folds):
    """Single-precision logits of nnU-Net's own predictor, as it reads the folder."""
    predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False, verbose=False)
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=tuple(range(folds)))
    kept, torch.half = torch.half, torch.float32
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).float()
    torch.half = kept
    return predictor, logits


def run(case_name, case):
    plans = plans_of(case)
    dataset = dict(channel_names={"0": "CT"}, labels=case["labels"], numTraining=1, file_ending=".nii.gz")
    if "order" in case:
        dataset["regions_class_order"] = case["order"]
    manager = PlansManager(plans)
    labels = manager.get_label_manager(dataset)
    data = image(case["shape"], 11, case["border"])[None]
    segmentation, kept = None, {}
    for stage, name in enumerate(("3d_lowres", "3d_cascade_fullres")):
        config = manager.get_configuration(name)
        folder = HERE / case_name / f"nnUNetTrainer__nnUNetPlans__{name}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
        (folder / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
        channels = determine_num_input_channels(manager, config, dataset)
        properties = dict(spacing=list(case["spacing"]))
        pre, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            data.copy(), segmentation, properties, manager, config, dataset)
        if stage == 1:
            onehot = convert_labelmap_to_one_hot(seg[0], labels.foreground_labels, pre.dtype)
            pre = np.vstack((pre, onehot))
        assert len(pre) == channels
        folds = case["folds"] if stage == 0 else 1
        for attempt in range(2):
            for fold in range(folds):
                network = nnUNetTrainer.build_network_architecture(
                    manager, config, channels, labels.num_segmentation_heads, False)
                with torch.no_grad():
                    state = weights(network, 7 * stage + fold)
                if attempt:
                    # Balanced classes, so that the label map has borders to agree on.
                    last = sorted(k for k in state if k.startswith("decoder.seg_layers.") and k.endswith(".bias"))[-1]
                    state[last] -= means
                (folder / f"fold_{fold}").mkdir(exist_ok=True)
                torch.save(dict(
                    network_weights=state, init_args=dict(plans=None, configuration=name, fold=fold, dataset_json=None),
                    trainer_name="nnUNetTrainer", inference_allowed_mirroring_axes=case["mirror"]),
                    folder / f"fold_{fold}" / "checkpoint_final.pth")
            _, logits = logits_of(folder, name, pre, folds)
            means = logits.mean(dim=(1, 2, 3))
        result = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.clone(), manager, config, labels, properties, return_probabilities=False)
        segmentation = np.asarray(result)[None].astype(np.int8)
        print(case_name, name, pre.shape, "labels", np.bincount(segmentation.ravel()), "logits", float(logits.abs().max()))
        if stage == 0:
            kept["stage_0.segmentation"] = torch.from_numpy(segmentation[0].astype(np.uint8))
        else:
            kept["preprocessed"] = torch.from_numpy(np.ascontiguousarray(pre).astype(np.float32))
            kept["logits"] = logits.contiguous()
            kept["segmentation"] = torch.from_numpy(segmentation[0].astype(np.uint8))
    kept["image"] = torch.from_numpy(data)
    save_file({k: v.contiguous() for k, v in kept.items()}, str(HERE / case_name / "expected.safetensors"),
              metadata=dict(spacing=json.dumps(case["spacing"])))


if __name__ == "__main__":
    for name, case in CASES.items():
        run(name, case)
