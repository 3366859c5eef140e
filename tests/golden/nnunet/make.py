"""Whole predictions of nnU-Net v2 on small volumes with random weights -> one safetensors file a case.

Made with nnunetv2 2.8.1, torch 2.15.0, dynamic-network-architectures as nnunetv2 requires, scipy 1.17.1:
    python make.py
nnU-Net's own DefaultPreprocessor, nnUNetPredictor and export run; only the reader of files is left out.
nnU-Net sums tiles in half precision; the logits kept here were summed in single precision (`torch.half` replaced for
the call), and `half_difference` in the header says how far nnU-Net's own half-precision logits lie from them.
The header's `plan` is ictus's plan.json for the same model.
"""
import json
from pathlib import Path

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from safetensors.torch import save_file

HERE = Path(__file__).parent
CODE = {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Abnormal Structure"}


def image(shape, seed, border=False):
    """CT-like: air, a bright shell, tissue with blobs; `border` puts zeros around, which nnU-Net crops."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    r = np.sqrt(sum(g**2 for g in grid))
    hu = np.full(shape, -1000.0)
    hu[r < 0.95] = 900
    hu[r < 0.8] = 35
    noise = gaussian_filter(rng.normal(0, 1, shape), 1.5)
    hu = hu + 30 * noise / noise.std() * (r < 0.8) + rng.normal(0, 4, shape)
    hu = np.rint(np.clip(hu, -1024, 3000))
    hu[hu == 0] = 1
    if border:
        hu[:2], hu[:, :1], hu[:, :, -3:] = 0, 0, 0
    return hu.astype(np.float32)


CASES = {
    # Coarse slices treated apart, two folds, transposed axes, zeros around.
    "folds_3d": dict(
        shape=(11, 21, 25), spacing=(4.0, 1.1, 0.9), border=True, transpose=(0, 2, 1), target=(4.5, 1.0, 1.2),
        patch=(8, 16, 16), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        labels=dict(background=0, bleed=1, oedema=2), schemes=["CTNormalization"], masks=[False], folds=2, mirror=None,
    ),
    # Even grid, every flip, smaller than the patch along one axis.
    "mirrored_3d": dict(
        shape=(9, 17, 20), spacing=(1.3, 1.0, 1.1), border=False, transpose=(0, 1, 2), target=(1.0, 1.0, 1.0),
        patch=(16, 8, 16), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3)),
        labels=dict(background=0, bleed=1), schemes=["CTNormalization"], masks=[False], folds=1, mirror=(0, 1, 2),
        largest=[1],
    ),
    # Slice by slice, two channels, one of them z-scored within the mask.
    "channels_2d": dict(
        shape=(5, 23, 26), spacing=(5.0, 1.2, 1.2), border=True, transpose=(0, 1, 2), target=(0.9, 1.0),
        patch=(16, 16), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)),
        labels=dict(background=0, bleed=1, oedema=2), schemes=["CTNormalization", "ZScoreNormalization"],
        masks=[False, True], folds=1, mirror=(0, 1),
    ),
    # Overlapping regions.
    "regions_3d": dict(
        shape=(10, 15, 18), spacing=(2.0, 1.5, 1.5), border=False, transpose=(0, 1, 2), target=(2.0, 1.4, 1.6),
        patch=(8, 8, 16), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3)),
        labels=dict(background=0, whole=[1, 2], core=[2]), order=[1, 2], schemes=["RescaleTo01Normalization"],
        masks=[False], folds=2, mirror=None,
    ),
}
CT = dict(mean=35.0, std=40.0, percentile_00_5=-60.0, percentile_99_5=140.0, min=-100.0, max=200.0, median=36.0)


def build(name, case):
    dims = len(case["patch"])
    stages = len(case["strides"])
    regions = "order" in case
    outputs = len(case["labels"]) - (1 if regions else 0)
    channels = len(case["schemes"])
    resampling = lambda order: dict(is_seg=False, order=order, order_z=0, force_separate_z=None)
    arch = dict(
        n_stages=stages, features_per_stage=[8 * 2**i for i in range(stages)],
        conv_op=f"torch.nn.modules.conv.Conv{dims}d", kernel_sizes=[list(k) for k in case["kernels"]],
        strides=[list(s) for s in case["strides"]], n_conv_per_stage=[1] * stages,
        n_conv_per_stage_decoder=[1] * (stages - 1), conv_bias=True,
        norm_op=f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", norm_op_kwargs=dict(eps=1e-5, affine=True),
        dropout_op=None, dropout_op_kwargs=None, nonlin="torch.nn.LeakyReLU", nonlin_kwargs=dict(inplace=True),
    )
    configuration = dict(
        data_identifier="x", preprocessor_name="DefaultPreprocessor", batch_size=2, patch_size=list(case["patch"]),
        spacing=list(case["target"]), normalization_schemes=case["schemes"], use_mask_for_norm=case["masks"],
        resampling_fn_data="resample_data_or_seg_to_shape", resampling_fn_seg="resample_data_or_seg_to_shape",
        resampling_fn_probabilities="resample_data_or_seg_to_shape",
        resampling_fn_data_kwargs=resampling(3), resampling_fn_seg_kwargs={**resampling(1), "is_seg": True},
        resampling_fn_probabilities_kwargs=resampling(1), batch_dice=False,
        architecture=dict(network_class_name="dynamic_network_architectures.architectures.unet.PlainConvUNet",
                          arch_kwargs=arch, _kw_requires_import=["conv_op", "norm_op", "dropout_op", "nonlin"]),
    )
    forward = list(case["transpose"])
    plans = dict(
        dataset_name="Dataset000_Golden", plans_name="nnUNetPlans", image_reader_writer="SimpleITKIO",
        transpose_forward=forward, transpose_backward=[forward.index(a) for a in range(3)],
        configurations={"c": configuration}, label_manager="LabelManager", experiment_planner_used="ExperimentPlanner",
        foreground_intensity_properties_per_channel={str(c): CT for c in range(channels)},
    )
    dataset = dict(channel_names={str(c): f"channel {c}" for c in range(channels)}, labels=case["labels"],
                   numTraining=1, file_ending=".nii.gz")
    if regions:
        dataset["regions_class_order"] = case["order"]

    ours = dict(network_class_name="PlainConvUNet", input_channels=channels, num_classes=outputs,
                **{k: arch[k] for k in ("n_stages", "features_per_stage", "kernel_sizes", "strides",
                                        "n_conv_per_stage", "n_conv_per_stage_decoder", "conv_bias")})
    scheme = lambda s: dict(scheme=s, lower_hu=CT["percentile_00_5"], upper_hu=CT["percentile_99_5"],
                            mean_hu=CT["mean"], std_hu=CT["std"]) if s == "CTNormalization" else dict(scheme=s)
    names = [n for n in case["labels"] if n != "background"]
    values = case["order"] if regions else [case["labels"][n] for n in names]
    plan_resampling = lambda order: dict(order=order, order_z=0, force_separate_z=None)
    plan = dict(
        schema=1, id=f"golden-{name.replace('_', '-')}", version="1", question="segmentation",
        configuration=dict(
            grid=dict(kind="volume", transpose_forward=forward, use_mask_for_norm=case["masks"],
                      resampling_data=plan_resampling(3), resampling_probabilities=plan_resampling(1)),
            patch_size=list(case["patch"]), spacing=list(case["target"]),
            normalization_schemes=[scheme(s) for s in case["schemes"]], tile_step_size=0.5, architecture=ours),
        members=case["folds"], ensemble="mean_logits", activation="sigmoid" if regions else "softmax",
        labels=[dict(value=v, name=n, category=CODE, type=dict(CODE, meaning=n), side_aware=False, min_volume_ml=0.0,
                     threshold=0.0, min_peak_score=0.0, flag_score=None) for n, v in zip(names, values)],
        keep_largest=[case["largest"]] if "largest" in case else [],
        trigger=dict(modality="CT", contrast="any", thickness_mm=[0.0, 10.0], body_part="ANY"),
        mirror_axes=list(case["mirror"] or []), calibration=None, golden=dict(tolerance=dict(f32=1e-4)),
    )
    return plans, dataset, plan


def weights(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        spread = 0.3 if value.ndim == 1 else (2.0 / value[0].numel()) ** 0.5
        value.copy_(torch.randn(value.shape, generator=generator) * spread + (1.0 if key.endswith("norm.weight") else 0))
    # Far-apart logits with no class always on top.
    for key, value in network.state_dict().items():
        if ".seg_layers." in key and value.ndim > 1:
            value.mul_(3)
    return {k: v.clone() for k, v in network.state_dict().items()}


def run(name, case):
    plans, dataset, plan = build(name, case)
    manager = PlansManager(plans)
    configuration = manager.get_configuration("c")
    labels = manager.get_label_manager(dataset)
    channels = len(case["schemes"])
    dims = len(case["patch"])
    arch = configuration.network_arch_init_kwargs
    conv, norm = (torch.nn.Conv3d, torch.nn.InstanceNorm3d) if dims == 3 else (torch.nn.Conv2d, torch.nn.InstanceNorm2d)
    network = PlainConvUNet(
        channels, conv_op=conv, norm_op=norm, nonlin=torch.nn.LeakyReLU, num_classes=labels.num_segmentation_heads,
        **{k: arch[k] for k in ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage",
                                "n_conv_per_stage_decoder", "conv_bias", "norm_op_kwargs", "nonlin_kwargs")},
        deep_supervision=False)
    parameters = [weights(network, 10 * len(name) + fold) for fold in range(case["folds"])]
    data = np.stack([image(case["shape"], 7 + c, case["border"]) for c in range(channels)])
    properties = dict(spacing=list(case["spacing"]))
    pre, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(data.copy(), None, properties, manager, configuration, dataset)

    def predict():
        predictor = nnUNetPredictor(use_mirroring=case["mirror"] is not None, device=torch.device("cpu"), allow_tqdm=False)
        predictor.manual_initialization(network, manager, configuration, parameters, dataset, "nnUNetTrainer", case["mirror"])
        return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(pre)).float()

    # Balanced classes, so that the label map has borders to agree on.
    means = predict().mean(dim=(1, 2, 3))
    for state in parameters:
        last = sorted(k for k in state if k.startswith("decoder.seg_layers.") and k.endswith(".bias"))[-1]
        state[last] -= means
    half = predict()
    kept, torch.half = torch.half, torch.float32
    logits = predict()
    torch.half = kept
    segmentation, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), manager, configuration, labels, properties, return_probabilities=True)
    if "largest" in case:
        segmentation = remove_all_but_largest_component_from_segmentation(segmentation, case["largest"])
    counts = np.bincount(np.asarray(segmentation).ravel().astype(int))
    difference = float((half - logits).abs().max())
    print(name, pre.shape, "labels", counts, "half difference", difference, "largest logit", float(logits.abs().max()))
    tensors = dict(image=torch.from_numpy(data), preprocessed=torch.from_numpy(np.ascontiguousarray(pre)),
                   logits=logits.contiguous(), segmentation=torch.from_numpy(np.ascontiguousarray(segmentation).astype(np.uint8)),
                   probabilities=torch.from_numpy(np.ascontiguousarray(probabilities)))
    for fold, state in enumerate(parameters):
        for key, value in state.items():
            if ".all_modules." not in key and not key.startswith("decoder.encoder."):
                tensors[f"member_{fold}.{key}"] = value.contiguous()
    save_file(tensors, str(HERE / f"{name}.safetensors"), metadata=dict(
        plan=json.dumps(plan), spacing=json.dumps(case["spacing"]), half_difference=str(difference)))


if __name__ == "__main__":
    for name, case in CASES.items():
        run(name, case)
