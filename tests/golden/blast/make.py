"""A folder of BLAST-CT with a small DeepMedic of random weights, and what the package predicts with it.

Made with: blast_ct 2.1.0, torch 2.15.0, SimpleITK 2.5.7.
Run: python make.py
`model/` is the folder (config.json as the package has it but for the network's size, and two checkpoints); each
`{case}.safetensors` is what BLAST-CT made of `{case}.nii.gz`: the image on its grid, the mean probabilities there, and
the label map on the grid of the file. `bad/` holds a checkpoint that must be refused.
"""
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from blast_ct.nifti.savers import NiftiPatchSaver
from blast_ct.read_config import get_model, get_test_loader
from blast_ct.trainer.inference import ModelInferenceEnsemble
from safetensors.torch import save_file

HERE = Path(__file__).parent
CONFIG = {
    "model": {"DeepMedic": {"fully_connected": [12, 12], "feature_maps": [4, 4, 6, 6]}},
    "data": {
        "class_names": ["foreground", "IPH", "EAH", "oedema", "IVH"], "task": "segmentation", "channels": ["image"],
        "target": "target", "resolution": [1.0, 1.0, 1.0],
        "transformation": {"IntensityWindowNormalization": {"lower_bound": -15.0, "upper_bound": 100.0}},
        "input_channels": 1, "num_classes": 5,
    },
    "training": {"batch_size": 10}, "valid": {"batch_size": 32},
    "test": {"batch_size": 32, "input_patch_size": [55, 55, 55], "num_workers": 0, "eval_every": 2000},
    "loss": {"CrossEntropyLoss": {}}, "optimizer": {}, "scheduler": {},
}
CASES = {
    # Integers; rows run to the front, as dcm2niix writes them; coarse slices.
    "integers": dict(shape=(5, 17, 20), spacing=(1.3, 1.2, 4.7), direction=(1, 0, 0, 0, -1, 0, 0, 0, 1), dtype=np.int16),
    # Columns and slices run the other way, pixels finer than the grid, numbers with a point, a stack that leans a little.
    "leaning": dict(shape=(7, 30, 24), spacing=(0.45, 0.62, 2.2), direction=None, dtype=np.float32),
}


def image(shape, spacing, direction, dtype):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(3)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    r = np.sqrt(sum(g**2 for g in grid))
    noise = gaussian_filter(rng.normal(0, 1, shape), 1.0)
    hu = np.where(r < 0.95, 35 + 45 * noise / noise.std(), -1000.0)
    out = sitk.GetImageFromArray((np.rint(hu) if dtype == np.int16 else hu).astype(dtype))
    out.SetSpacing(spacing)
    if direction is None:
        a = np.deg2rad(12)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        direction = (turn @ np.diag([-1, 1, -1])).flatten().tolist()
    out.SetDirection(direction)
    out.SetOrigin((3.0, -20.0, 7.0))
    return out


def main():
    folder = HERE / "model"
    (folder / "saved_models").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    model = get_model(CONFIG)
    paths = []
    for i in (1, 2):
        generator = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if not value.dtype.is_floating_point:
                    continue
                noise = torch.randn(value.shape, generator=generator)
                if name.endswith("running_var"):
                    value.copy_(0.5 + noise.abs())
                elif value.ndim > 1:
                    value.copy_(noise * (2 / value[0].numel()) ** 0.5)
                    if name == "fully_connected.2.conv.weight":
                        # No class always on top.
                        value.sub_(value.mean(dim=1, keepdim=True)).mul_(2)
                elif name.endswith("prelu.weight"):
                    value.copy_(0.25 + 0.1 * noise)
                else:
                    value.copy_((1 if name.endswith("weight") else 0) + 0.2 * noise)
        paths.append(str(folder / f"saved_models/model_{i}.torch_model"))
        torch.save(model.state_dict(), paths[-1])
    (HERE / "bad").mkdir(exist_ok=True)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state["fully_connected.1.conv.weight"].view(-1)[7] = float("nan")
    torch.save(state, HERE / "bad/nan.torch_model")
    for name, case in CASES.items():
        file = HERE / f"{name}.nii.gz"
        source = image(**case)
        sitk.WriteImage(source, str(file))
        job = tempfile.mkdtemp()
        csv = Path(job) / "test.csv"
        pd.DataFrame(data=[["im_0", str(file)]], columns=["id", "image"]).to_csv(csv, index=False)
        loader = get_test_loader(CONFIG, model, str(csv), use_cuda=False)
        saver = NiftiPatchSaver(job, loader, write_prob_maps=True)
        ModelInferenceEnsemble(job, torch.device("cpu"), model, saver, paths, task="segmentation")(loader)
        kept = {}
        from blast_ct.nifti.savers import reconstruct_image

        dataset = loader.dataset
        kept["input"] = torch.from_numpy(np.ascontiguousarray(dataset.get_case(0)[0]).astype(np.float32))
        target_shape, centers = dataset.image_mapping[0]
        inference = ModelInferenceEnsemble(job, torch.device("cpu"), model, saver, paths, task="segmentation")
        patches = [p for state in inference.inference(loader) for p in state["prob"].numpy()]
        probabilities = reconstruct_image(patches, target_shape, centers, dataset.patch_sampler.target_patch_size)
        kept["probabilities"] = torch.from_numpy(np.ascontiguousarray(probabilities.transpose(3, 0, 1, 2)).astype(np.float32))
        labels = sitk.GetArrayFromImage(sitk.ReadImage(f"{job}/predictions/im_0_prediction.nii.gz"))
        kept["labels"] = torch.from_numpy(labels.astype(np.uint8))
        print(name, tuple(kept["input"].shape), "labels", np.bincount(labels.astype(int).ravel()))
        save_file(kept, str(HERE / f"{name}.safetensors"))
        shutil.rmtree(job)


if __name__ == "__main__":
    main()
