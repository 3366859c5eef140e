"""The same answer from a DICOM series as from the NIfTI that dcm2niix makes of it.

    python tests/bench/nnunet/dicom.py RESULTS --ictus target/release/ictus [--series FOLDER] [--threads 2]

RESULTS is a folder that nnU-Net wrote. Needs nnunetv2, torch, SimpleITK, pydicom and dcm2niix. Without --series the series
is a phantom of ictus's own. Three ways lead to a probability of each voxel: `ictus analyze` on the series (its float
Parametric Map of the score), `ictus analyze` on the NIfTI of dcm2niix, and nnUNetv2_predict on the same NIfTI. They are
compared at each pixel of each frame of the map, found through positions and orientations alone. The first fold is used.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from run import analyze, environment, folds_of, imported


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--ictus", type=Path, required=True)
    arguments.add_argument("--series", type=Path)
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    args = arguments.parse_args()
    args.ictus = args.ictus.resolve()
    with tempfile.TemporaryDirectory(prefix="ictus-dicom-") as folder:
        compare(args, Path(folder))


def run(command, env):
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed ({done.returncode}):\n{done.stdout}{done.stderr}")


def compare(args, work):
    env = environment(args.threads, work)
    trained, models, _ = imported(args, work, "same", folds_of(args.results)[:1], True)
    series = args.series
    if series is None:
        run([args.ictus, "phantom", "--out", work / "phantom", "--seed", "3"], env)
        series = next(work.glob("phantom/**/*.dcm")).parent
    images = work / "in"
    images.mkdir()
    run([Path(sys.executable).parent / "dcm2niix", "-z", "y", "-b", "n", "-o", images, "-f", "case_0000", series], env)
    case = images / "case_0000.nii.gz"
    by_series, by_file, by_nnunet = work / "series", work / "file", work / "nnunet"
    run([*analyze(args, series, "same", models, by_series), "--maps", "score", "--map-format", "float32"], env)
    run(analyze(args, case, "same", models, by_file), env)
    run([Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder", "-i", images, "-o", by_nnunet, "-m", trained, "-f",
         str(folds_of(args.results)[0]), "-device", "cpu", "-npp", "1", "-nps", "1", "--save_probabilities"], env)
    image = sitk.ReadImage(str(case))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(by_file / "probabilities.nii.gz")))
    theirs = 1 - np.load(by_nnunet / "case.npz")["probabilities"][0]
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(by_file / "labels.nii.gz")))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(by_nnunet / "case.nii.gz")))
    print(f"series of {len(list(series.glob('*.dcm')))} instances -> NIfTI of {image.GetSize()}, {image.GetSpacing()} mm")
    print(f"ictus on the NIfTI against nnU-Net on it: probability {np.abs(ours - theirs).max():.1e}, "
          f"{(found != expected).sum()} of {found.size} labels differ, {(expected > 0).sum()} are foreground")
    worst, pixels, frames = [0.0, 0.0], 0, 0
    for dataset in maps(by_series):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for frame, groups in zip(dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns), dataset.PerFrameFunctionalGroupsSequence):
            of = lambda name, item: getattr(getattr(groups if name in groups else shared, name)[0], item)
            origin = np.array(of("PlanePositionSequence", "ImagePositionPatient"), float)
            along = np.array(of("PlaneOrientationSequence", "ImageOrientationPatient"), float).reshape(2, 3)
            rows_mm, columns_mm = map(float, of("PixelMeasuresSequence", "PixelSpacing"))
            r, c = np.meshgrid(range(frame.shape[0]), range(frame.shape[1]), indexing="ij")
            points = origin + c[..., None] * columns_mm * along[0] + r[..., None] * rows_mm * along[1]
            # Both LPS.
            matrix = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
            indices = (points - np.array(image.GetOrigin())) @ np.linalg.inv(matrix).T
            whole = np.rint(indices).astype(int)
            assert np.abs(indices - whole).max() < 0.01, "the pixels lie beside the voxels"
            x, y, z = whole.reshape(-1, 3).T
            for i, other in enumerate((ours, theirs)):
                worst[i] = max(worst[i], float(np.abs(frame.ravel() - other[z, y, x]).max()))
            pixels, frames = pixels + frame.size, frames + 1
    assert frames, "the series has no map of the score"
    print(f"ictus on the series against ictus on the NIfTI: probability {worst[0]:.1e} in {pixels} pixels of {frames} frames")
    print(f"ictus on the series against nnU-Net on the NIfTI: probability {worst[1]:.1e}")
    report = json.loads((by_series / "findings.json").read_text())
    print("refusals:", [refusal["text"] for refusal in report["refusals"]])


def maps(folder):
    """The Parametric Maps of the score, as float."""
    for path in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        if "FloatPixelData" in dataset and "SCORE" in str(dataset.get("ContentLabel", "")).upper():
            yield dataset


if __name__ == "__main__":
    main()
