"""A whole case: `ictus analyze` beside `nnUNetv2_predict_from_modelfolder -device cpu`, same model, same file.

    python tests/bench/nnunet/run.py RESULTS --ictus target/release/ictus [--shape 32 256 256] [--runs 3] [--threads 2]

RESULTS is a folder that nnU-Net wrote (`Trainer__Plans__configuration`, with plans.json and fold_N/). Needs the Python
of ICTUS_BENCH_PYTHON: nnunetv2, torch, SimpleITK. Runs are interleaved. Two settings: the first fold with mirroring,
and all folds without. Prints for each the median wall time, CPU time and peak memory of both, with all runs; the Dice of
each label between the two label maps; and the largest difference of foreground probability (one fold only: with several,
ictus gives the mean of the folds' probabilities and nnU-Net the probability of their mean logits).

Peak memory is that of the largest process (`ru_maxrss`): nnU-Net's workers for reading and writing are not added, which
favours nnU-Net. nnU-Net runs with one worker each, its own default model of tiles, and no compilation.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def head(shape, spacing, path, seed):
    """A head-like CT volume with noise, written as NIfTI."""
    import SimpleITK as sitk
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij")
    r = np.sqrt((z / 1.15) ** 2 + (y / 0.9) ** 2 + (x / 0.8) ** 2)
    hu = np.full(shape, -1000, np.float32)
    hu[r < 0.95] = 900
    brain = r < 0.85
    hu[brain] = 32 + 30 * gaussian_filter(rng.standard_normal(shape).astype(np.float32), 3)[brain]
    for level in (65, 15):
        c, s = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.15, 0.3)
        hu[((((z - c[0]) / 1.2) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2) < s**2) & brain] = level
    hu = gaussian_filter(hu, (0, 0.6, 0.6)) + rng.normal(0, 4, shape)
    image = sitk.GetImageFromArray(np.rint(np.clip(hu, -1024, 3000)).astype(np.int16))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((-70.0, -80.0, 10.0))
    sitk.WriteImage(image, str(path))


# Linux counts what a process was before it became another program: a small one in between keeps ours out of the peak.
LAUNCHER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([status, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def timed(command, env):
    """Wall seconds, CPU seconds and peak MiB of a command and what it waited for."""
    launcher = [sys.executable, "-S", "-E", "-c", LAUNCHER, *map(str, command)]
    done = subprocess.run(launcher, env=env, capture_output=True, text=True)
    status, *numbers = json.loads(done.stdout)
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return numbers


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--ictus", type=Path, required=True)
    arguments.add_argument("--image", type=Path, help="a NIfTI file instead of the synthetic head")
    arguments.add_argument("--shape", type=int, nargs=3, default=(32, 256, 256))
    arguments.add_argument("--spacing", type=float, nargs=3, default=(5.0, 0.9, 0.9))
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--only", choices=("mirrored", "folds"))
    arguments.add_argument("--keep", type=Path, help="folder for the inputs and outputs")
    args = arguments.parse_args()
    work = args.keep or Path(tempfile.mkdtemp(prefix="ictus-bench-"))
    (work / "in").mkdir(parents=True, exist_ok=True)
    case = work / "in" / "case_0000.nii.gz"
    if args.image:
        shutil.copy(args.image, case)
    else:
        head(tuple(args.shape), tuple(args.spacing), case, 1)
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads), RAYON_NUM_THREADS=str(args.threads),
               nnUNet_compile="f", nnUNet_def_n_proc=str(args.threads), nnUNet_raw=str(work), nnUNet_preprocessed=str(work),
               nnUNet_results=str(work))
    folds = sorted(int(p.name[5:]) for p in args.results.glob("fold_[0-9]*"))
    settings = [s for s in (("mirrored", folds[:1], True), ("folds", folds, False)) if args.only in (None, s[0])]
    import nnunetv2  # noqa: F401
    import torch
    from importlib.metadata import version

    print(f"nnunetv2 {version('nnunetv2')}, torch {torch.__version__}, {args.threads} threads, {args.results.name}, volume {args.shape}, {args.runs} runs")
    for name, chosen, mirrored in settings:
        measure(args, work, case, env, name, chosen, mirrored)
    if not args.keep:
        shutil.rmtree(work)


def measure(args, work, case, env, name, folds, mirrored):
    import SimpleITK as sitk

    trained = work / f"{name}-model"
    shutil.rmtree(trained, ignore_errors=True)
    trained.mkdir()
    for file in ("plans.json", "dataset.json"):
        shutil.copy(args.results / file, trained / file)
    for fold in folds:
        os.symlink((args.results / f"fold_{fold}").resolve(), trained / f"fold_{fold}")
    models = work / f"{name}-models"
    shutil.rmtree(models, ignore_errors=True)
    subprocess.run([args.ictus, "model", "import", trained, "--id", name, "--out", models], check=True, env=env, stdout=subprocess.DEVNULL)
    plan = models / name / "plan.json"
    content = json.loads(plan.read_text())
    if not mirrored:
        content["mirror_axes"] = []
        plan.write_text(json.dumps(content))
    ours, theirs = work / f"{name}-ictus", work / f"{name}-nnunet"
    ictus = [args.ictus, "analyze", case, "--model", name, "--models-dir", models, "--device", "cpu", "--out", ours]
    predict = [Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder", "-i", case.parent, "-o", theirs, "-m", trained,
               "-f", *map(str, folds), "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    if not mirrored:
        predict.append("--disable_tta")
    runs = {"ictus": [], "nnU-Net": []}
    for _ in range(args.runs):
        runs["nnU-Net"].append(timed(predict, env))
        runs["ictus"].append(timed(ictus, env))
    print(f"\n{name}: folds {folds}, mirroring {content['mirror_axes'] or 'off'}")
    for who, rows in runs.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*rows))
        every = ", ".join(f"{row[0]:.1f}" for row in rows)
        print(f"  {who:8} wall {wall:7.1f} s  cpu {cpu:7.1f} s  peak {peak:6.0f} MiB  (wall of each: {every})")
    medians = {who: [statistics.median(c) for c in zip(*rows)] for who, rows in runs.items()}
    ratio = [n / i for n, i in zip(medians["nnU-Net"], medians["ictus"])]
    print(f"  nnU-Net / ictus: wall {ratio[0]:.2f}, cpu {ratio[1]:.2f}, peak memory {ratio[2]:.2f}")
    read = lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    found, expected = read(ours / "labels.nii.gz"), read(theirs / "case.nii.gz")
    for value in sorted(set(np.unique(expected)) - {0}):
        a, b = found == value, expected == value
        print(f"  label {value}: Dice {2 * (a & b).sum() / (a.sum() + b.sum()):.6f} of {b.sum()} voxels")
    print(f"  voxels that differ: {(found != expected).sum()} of {found.size}")
    if len(folds) == 1:
        # Once more, for the probabilities: writing them is no part of the time.
        timed([*predict, "--save_probabilities"], env)
        probabilities = np.load(theirs / "case.npz")["probabilities"]
        difference = np.abs(1 - probabilities[0] - read(ours / "probabilities.nii.gz"))
        print(f"  foreground probability: largest difference {difference.max():.2e}, mean {difference.mean():.2e}")


if __name__ == "__main__":
    main()
