"""A whole case: `ictus analyze` beside `nnUNetv2_predict_from_modelfolder -device cpu`, same model, same file.

    python tests/bench/nnunet/run.py RESULTS --ictus target/release/ictus [--shape 32 256 256] [--runs 3] [--threads 2]
    python tests/bench/nnunet/run.py RESULTS --ictus target/release/ictus --growth [--runs 3]

RESULTS is a folder that nnU-Net wrote (`Trainer__Plans__configuration`, with plans.json and fold_N/); `make_model.py`
makes one. Needs the Python of ICTUS_BENCH_PYTHON: nnunetv2, torch, SimpleITK; with openvino there is a third contestant,
nnU-Net's own prediction with the network run by OpenVINO (`openvino_predict.py`; its export is not timed). Runs are
interleaved. Two settings: the first fold with mirroring, and all folds without. Prints for each the median wall time, CPU
time and peak memory of all, with all runs; the Dice of each label between the label maps; and the largest difference of
foreground probability (one fold only: with several, ictus gives the mean of the folds' probabilities and nnU-Net the
probability of their mean logits). All logits agree when all probabilities do: the largest difference of logits is in
`tests/golden/nnunet`.

`--growth` runs ictus alone, without mirroring: 1, 2 and 4 tiles, 1, 2 and all folds, 1 and 2 threads, in one table.

Peak memory is that of the largest process (`ru_maxrss`): nnU-Net's workers for reading and writing are not added, which
favours nnU-Net. nnU-Net runs with one worker each, its own default model of tiles, and no compilation.
"""
import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def head(shape, spacing, path, seed, labels=None):
    """A head-like CT volume with noise, written as NIfTI; what is dense in it is 1 and what is faint 2 in `labels`."""
    import SimpleITK as sitk
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij")
    r = np.sqrt((z / 1.15) ** 2 + (y / 0.9) ** 2 + (x / 0.8) ** 2)
    hu = np.full(shape, -1000, np.float32)
    hu[r < 0.95] = 900
    brain = r < 0.85
    hu[brain] = 32 + 30 * gaussian_filter(rng.standard_normal(shape).astype(np.float32), 3)[brain]
    truth = np.zeros(shape, np.uint8)
    for label, level in ((1, 65), (2, 15)):
        c, s = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.15, 0.3)
        spot = ((((z - c[0]) / 1.2) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2) < s**2) & brain
        hu[spot], truth[spot] = level, label
    hu = gaussian_filter(hu, (0, 0.6, 0.6)) + rng.normal(0, 4, shape)
    for array, to in ((np.rint(np.clip(hu, -1024, 3000)).astype(np.int16), path), (truth, labels)):
        if to is None:
            continue
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing[::-1])
        image.SetOrigin((-70.0, -80.0, 10.0))
        sitk.WriteImage(image, str(to))


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


def compare(who, found, expected):
    """How far a label map lies from nnU-Net's own."""
    for value in sorted(set(np.unique(expected)) - {0}):
        a, b = found == value, expected == value
        print(f"  {who}: label {value}: Dice {2 * (a & b).sum() / (a.sum() + b.sum()):.6f} of {b.sum()} voxels")
    print(f"  {who}: voxels that differ: {(found != expected).sum()} of {found.size}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--ictus", type=Path, required=True)
    arguments.add_argument("--image", type=Path, help="a NIfTI file instead of the synthetic head")
    arguments.add_argument("--shape", type=int, nargs=3, default=(32, 256, 256))
    arguments.add_argument("--spacing", type=float, nargs=3, default=(5.0, 0.9, 0.9))
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--growth", action="store_true", help="ictus alone: time by tiles, folds and threads")
    arguments.add_argument("--only", choices=("mirrored", "folds"))
    arguments.add_argument("--keep", type=Path, help="folder for the inputs and outputs")
    args = arguments.parse_args()
    work = args.keep or Path(tempfile.mkdtemp(prefix="ictus-bench-"))
    shutil.rmtree(work / "in", ignore_errors=True)
    (work / "in").mkdir(parents=True)
    case = work / "in" / "case_0000.nii.gz"
    if args.growth:
        return grow(args, work)
    if args.image:
        shutil.copy(args.image, case)
    else:
        head(tuple(args.shape), tuple(args.spacing), case, 1)
    env = environment(args.threads, work)
    folds = folds_of(args.results)
    settings = [s for s in (("mirrored", folds[:1], True), ("folds", folds, False)) if args.only in (None, s[0])]
    import nnunetv2  # noqa: F401
    import torch
    from importlib.metadata import version

    print(f"nnunetv2 {version('nnunetv2')}, torch {torch.__version__}, {args.threads} threads, {args.results.name}, volume {args.shape}, {args.runs} runs")
    for name, chosen, mirrored in settings:
        measure(args, work, case, env, name, chosen, mirrored)
    if not args.keep:
        shutil.rmtree(work)


def environment(threads, work):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), RAYON_NUM_THREADS=str(threads), nnUNet_compile="f",
                nnUNet_def_n_proc=str(threads), nnUNet_raw=str(work), nnUNet_preprocessed=str(work), nnUNet_results=str(work))


def folds_of(results):
    return sorted(int(p.name[5:]) for p in results.glob("fold_[0-9]*"))


def imported(args, work, name, folds, mirrored):
    """The results folder with these folds only, the folder of ictus's models, and the plan of the model made from it."""
    trained, models = work / f"{name}-model", work / f"{name}-models"
    for folder in (trained, models):
        shutil.rmtree(folder, ignore_errors=True)
    trained.mkdir()
    for file in ("plans.json", "dataset.json"):
        shutil.copy(args.results / file, trained / file)
    for fold in folds:
        os.symlink((args.results / f"fold_{fold}").resolve(), trained / f"fold_{fold}")
    subprocess.run([args.ictus, "model", "import", trained, "--id", name, "--out", models], check=True,
                   stdout=subprocess.DEVNULL)
    plan = models / name / "plan.json"
    content = json.loads(plan.read_text())
    if not mirrored:
        content["mirror_axes"] = []
        plan.write_text(json.dumps(content))
    return trained, models, content


def analyze(args, case, name, models, out):
    return [args.ictus, "analyze", case, "--model", name, "--models-dir", models, "--device", "cpu", "--out", out]


def grow(args, work):
    """Tiles lie behind each other along the first axis; the volume is on the model's own grid."""
    every = folds_of(args.results)
    counts = sorted({1, min(2, len(every)), len(every)})
    made = {count: imported(args, work, f"folds{count}", every[:count], False) for count in counts}
    configuration = made[1][2]["configuration"]
    patch, spacing = configuration["patch_size"], configuration["spacing"]
    print(f"{args.results.name}, tiles of {patch}, no mirroring, median of {args.runs} runs: wall s, CPU s, peak MiB")
    print(f"{'threads':>7} {'folds':>5} {'tiles':>5} {'voxels':>10} {'wall':>8} {'cpu':>8} {'peak':>6}  wall a tile and fold")
    settings = [(threads, folds, tiles) for threads in (1, 2) for folds in counts for tiles in (1, 2, 4)
                if folds == 1 or tiles == 1]
    rows = {setting: [] for setting in settings}
    for _ in range(args.runs):
        for threads, folds, tiles in settings:
            # Steps are half a tile.
            shape = (patch[0] * (tiles + 1) // 2, *patch[1:])
            case = work / "in" / f"grow{tiles}_0000.nii.gz"
            if not case.exists():
                head(shape, tuple(spacing), case, 1)
            command = analyze(args, case, f"folds{folds}", made[folds][1], work / "grown")
            rows[threads, folds, tiles].append(timed(command, environment(threads, work)))
    for (threads, folds, tiles), runs in rows.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*runs))
        voxels = patch[0] * (tiles + 1) // 2 * patch[1] * patch[2]
        print(f"{threads:7} {folds:5} {tiles:5} {voxels:10} {wall:8.1f} {cpu:8.1f} {peak:6.0f}  {wall / tiles / folds:.1f}")


def measure(args, work, case, env, name, folds, mirrored):
    import SimpleITK as sitk

    trained, models, content = imported(args, work, name, folds, mirrored)
    ours, theirs = work / f"{name}-ictus", work / f"{name}-nnunet"
    ictus = analyze(args, case, name, models, ours)
    predict = [Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder", "-i", case.parent, "-o", theirs, "-m", trained,
               "-f", *map(str, folds), "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    if not mirrored:
        predict.append("--disable_tta")
    commands = {"nnU-Net": predict, "ictus": ictus}
    if importlib.util.find_spec("openvino"):
        networks, out = work / f"{name}-networks", work / f"{name}-openvino"
        script = [sys.executable, Path(__file__).with_name("openvino_predict.py")]
        subprocess.run([*script, "export", trained, *map(str, folds), networks], check=True, env=env, stdout=subprocess.DEVNULL)
        commands["OpenVINO"] = [*script, "predict", trained, *map(str, folds), networks, case.parent, out]
        if not mirrored:
            commands["OpenVINO"].append("--no-mirroring")
    runs = {who: [] for who in commands}
    for _ in range(args.runs):
        for who, command in commands.items():
            runs[who].append(timed(command, env))
    print(f"\n{name}: folds {folds}, mirroring {content['mirror_axes'] or 'off'}")
    for who, rows in runs.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*rows))
        every = ", ".join(f"{row[0]:.1f}" for row in rows)
        print(f"  {who:8} wall {wall:7.1f} s  cpu {cpu:7.1f} s  peak {peak:6.0f} MiB  (wall of each: {every})")
    medians = {who: [statistics.median(c) for c in zip(*rows)] for who, rows in runs.items()}
    for who in sorted(set(commands) - {"ictus"}):
        ratio = [n / i for n, i in zip(medians[who], medians["ictus"])]
        print(f"  {who} / ictus: wall {ratio[0]:.2f}, cpu {ratio[1]:.2f}, peak memory {ratio[2]:.2f}")
    read = lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    found, expected = read(ours / "labels.nii.gz"), read(theirs / "case.nii.gz")
    compare("ictus", found, expected)
    if "OpenVINO" in commands:
        compare("OpenVINO", read(out / "case.nii.gz"), expected)
    if len(folds) == 1:
        # Once more, for the probabilities: writing them is no part of the time.
        timed([*predict, "--save_probabilities"], env)
        probabilities = np.load(theirs / "case.npz")["probabilities"]
        difference = np.abs(1 - probabilities[0] - read(ours / "probabilities.nii.gz"))
        print(f"  foreground probability: largest difference {difference.max():.2e}, mean {difference.mean():.2e}")


if __name__ == "__main__":
    main()
