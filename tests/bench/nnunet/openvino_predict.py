"""nnU-Net's own prediction with the network run by OpenVINO: what `run.py` measures beside ictus and nnU-Net.

    python openvino_predict.py export MODEL FOLD... OUT            once a model: one OpenVINO network a fold
    python openvino_predict.py predict MODEL FOLD... NETWORKS IN OUT [--no-mirroring]

Reading, preprocessing, tiles, mirroring, folds, the way back and writing are nnUNetPredictor's; only what it calls its
network is replaced by a module that asks OpenVINO's compiled model (f32, latency, OMP_NUM_THREADS threads).
"""
import os
import sys
from pathlib import Path

import openvino
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))


def predictor(model, folds, mirroring):
    torch.set_num_threads(THREADS)
    made = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(model), folds, "checkpoint_final.pth")
    return made


def export(model, folds, out):
    out.mkdir(parents=True, exist_ok=True)
    made = predictor(model, folds, False)
    patch = made.configuration_manager.patch_size
    channels = len(made.dataset_json["channel_names"])
    network = made.network.eval()
    for fold, parameters in zip(folds, made.list_of_parameters):
        network.load_state_dict(parameters)
        example = torch.zeros(1, channels, *patch)
        with torch.no_grad():
            converted = openvino.convert_model(network, example_input=example, input=[list(example.shape)])
        openvino.save_model(converted, out / f"fold_{fold}.xml", compress_to_fp16=False)


class Compiled(torch.nn.Module):
    """Stands where nnU-Net's network stood."""

    def __init__(self, folds, parameters, networks):
        super().__init__()
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self.known = {id(p): core.compile_model(networks / f"fold_{f}.xml", "CPU", settings) for f, p in zip(folds, parameters)}
        self.current = next(iter(self.known.values()))

    def load_state_dict(self, parameters):
        self.current = self.known[id(parameters)]

    def forward(self, x):
        # nnU-Net changes what it is given; OpenVINO writes the next answer to the same place.
        return torch.from_numpy(self.current(x.numpy())[0].copy())


def predict(model, folds, networks, images, out, mirroring):
    made = predictor(model, folds, mirroring)
    made.network = Compiled(folds, made.list_of_parameters, networks)
    made.predict_from_files(str(images), str(out), overwrite=True, num_processes_preprocessing=1,
                            num_processes_segmentation_export=1)


if __name__ == "__main__":
    mirroring = "--no-mirroring" not in sys.argv
    command, model, *rest = [a for a in sys.argv[1:] if a != "--no-mirroring"]
    folds = tuple(int(a) for a in rest if a.isdigit())
    places = [Path(a) for a in rest if not a.isdigit()]
    if command == "export":
        export(Path(model), folds, *places)
    else:
        predict(Path(model), folds, *places, mirroring)
