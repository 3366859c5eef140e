"""A real nnU-Net v2 model for `run.py`: synthetic heads, nnU-Net's own plan, a short training, five folds.

    python tests/bench/nnunet/make_model.py OUT [--cases 5] [--shape 32 256 256] [--iterations 25] [--train-patch 16 128 128]

Needs nnunetv2, torch and SimpleITK. OUT gets nnU-Net's folders `raw`, `preprocessed` and `results`; the last line printed
is the results folder that `run.py` and `ictus model import` take. The fingerprint, plan, preprocessing and training are
nnunetv2's; the architecture and patch are as planned for the volumes. To be quick, the training steps alone see a smaller
patch (`--train-patch`), one sample a step. Only fold 0 is trained. Folds 1 to 4 are that checkpoint with every weight
multiplied by 1 + 0.02 × normal noise: networks as large and as slow, whose answers differ a little.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

DATASET = "Dataset901_Heads"
FOLDS = 5
NOISE = 0.02


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--cases", type=int, default=FOLDS)
    arguments.add_argument("--shape", type=int, nargs=3, default=(32, 256, 256))
    arguments.add_argument("--spacing", type=float, nargs=3, default=(5.0, 0.9, 0.9))
    arguments.add_argument("--iterations", type=int, default=25)
    arguments.add_argument("--train-patch", type=int, nargs=3, default=(16, 128, 128))
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    args = arguments.parse_args()
    for name in ("raw", "preprocessed", "results"):
        (args.out / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str((args.out / name).resolve())
    os.environ.update(nnUNet_compile="f", nnUNet_n_proc_DA=str(args.threads), OMP_NUM_THREADS=str(args.threads))
    # These read the environment when they are imported.
    from run import head

    raw = args.out / "raw" / DATASET
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    for case in range(args.cases):
        head(tuple(args.shape), tuple(args.spacing), raw / f"imagesTr/head{case}_0000.nii.gz", case,
             raw / f"labelsTr/head{case}.nii.gz")
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "dense": 1, "faint": 2}, "numTraining": args.cases,
        "file_ending": ".nii.gz", "name": DATASET, "description": "synthetic heads for benchmarks"}))
    program = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    subprocess.run([program, "-d", DATASET[7:10], "-c", "3d_fullres", "-np", "1", "-npfp", "1"], check=True)
    train(args)
    results = args.out / "results" / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    spread(results)
    print(results)


def train(args):
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # No processes beside this one.
    os.environ["nnUNet_n_proc_DA"] = "0"
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    preprocessed = args.out / "preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    planned = plans["configurations"]["3d_fullres"]
    print("planned:", planned["patch_size"], planned["spacing"], planned["architecture"]["arch_kwargs"]["features_per_stage"],
          planned["architecture"]["arch_kwargs"]["strides"])
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    # As nnU-Net's own run_training does it.
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, args.iterations, 1
    trainer.initialize()
    # The checkpoint and the folder keep the plan as it is.
    trainer.configuration_manager.configuration["patch_size"] = list(args.train_patch)
    trainer.configuration_manager.configuration["batch_size"] = trainer.batch_size = 1
    trainer.run_training()


def spread(results):
    import torch

    # The training changed its own copy of the plan; what a user has is the plan as it was made.
    plans = json.loads((Path(os.environ["nnUNet_preprocessed"]) / DATASET / "nnUNetPlans.json").read_text())
    (results / "plans.json").write_text(json.dumps(plans, indent=1))
    trained = torch.load(results / "fold_0/checkpoint_final.pth", map_location="cpu", weights_only=False)
    for fold in range(1, FOLDS):
        generator = torch.Generator().manual_seed(fold)
        moved, seen = {}, {}
        for key, value in trained["network_weights"].items():
            # The same tensor stands there under several names.
            place = value.data_ptr()
            if place not in seen:
                noise = torch.randn(value.shape, generator=generator) if value.dtype.is_floating_point else 0
                seen[place] = value * (1 + NOISE * noise)
            moved[key] = seen[place]
        (results / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(trained | {"network_weights": moved}, results / f"fold_{fold}/checkpoint_final.pth")


if __name__ == "__main__":
    main()
