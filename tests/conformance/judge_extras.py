"""Opens a folder of anatomical structures, label maps, pictures and key objects with every outside reader that we know.

usage: judge_extras.py FOLDER [--even]

FOLDER holds ct*.dcm, sc*.dcm, structures.dcm and, when there is a finding, labelmap.dcm and kos.dcm, and what was meant by them:
segments.u16 and structures.u8 (slices, rows, columns, little endian) and meant.json.
Exits 1 after the objections, if there is one.
"""

import json
import tempfile
from pathlib import Path

import highdicom
import nibabel
import numpy
import pydicom
from readers import BIN, dcentvfy, dciodvfy, key_of, object_to, pixels_by_source, run, tell


def main(folder, even):
    meant = json.loads((folder / "meant.json").read_text())
    segments = numpy.fromfile(folder / "segments.u16", "<u2").reshape(meant["shape"])
    source = sorted(folder.glob("ct*.dcm"))
    pictures = sorted(folder.glob("sc*.dcm"))
    others = [folder / name for name in ("labelmap.dcm", "kos.dcm") if (folder / name).exists()]
    if not pictures or bool(meant["findings"]) != (len(others) == 2):
        object_to("judge", f"{len(pictures)} pictures and {len(others)} of label map and key objects")
    known = dciodvfy(source[0])
    structures = numpy.fromfile(folder / "structures.u8", "u1").reshape(meant["shape"])
    judge_structures(folder / "structures.dcm", meant, structures, even)
    for path in [*pictures, *others, folder / "structures.dcm"]:
        for error in sorted(dciodvfy(path) - known):
            object_to("dciodvfy", f"{path.name}: {error}")
    dcentvfy(source, [*pictures, *others, folder / "structures.dcm"])
    judge_pictures(meant, pictures, segments)
    if others:
        judge_label_map(folder / "labelmap.dcm", meant, segments, even)
        judge_key_objects(folder / "kos.dcm", meant, segments)


def judge_pictures(meant, pictures, segments):
    shown = set()
    for number, path in enumerate(pictures):
        image = pydicom.dcmread(path)
        index = meant["sources"].index(list(key_of(image.SourceImageSequence[0])))
        shown.add(index)
        if image.InstanceNumber != number + 1 or image.BurnedInAnnotation != "YES":
            object_to("pydicom", f"{path.name}: number {image.InstanceNumber}, {image.BurnedInAnnotation}")
        with tempfile.TemporaryDirectory() as out:
            target = Path(out) / "picture.ppm"
            code, said = run("dcm2pnm", "+op", path, target)
            if code != 0 or not target.exists():
                object_to("dcmtk", f"{path.name}: dcm2pnm: {code}: {said[-300:]}")
                continue
            pixels = numpy.frombuffer(target.read_bytes()[-image.Rows * image.Columns * 3 :], numpy.uint8)
            pixels = pixels.reshape(image.Rows, image.Columns, 3)
        if not numpy.array_equal(pixels, image.pixel_array):
            object_to("dcmtk", f"{path.name}: dcm2pnm and pydicom see different pictures")
        rows, columns = segments.shape[1:]
        scale = image.Columns // columns
        # Words stand above and below the image, never on it; the outline stands around the finding, never on it.
        red = (pixels == (255, 64, 48)).all(axis=2)
        words = ((pixels == 255).all(axis=2) | (pixels == (255, 220, 0)).all(axis=2)).any(axis=1)
        top = next(row for row in range(image.Rows) if not words[row : row + 40].any())
        inside = numpy.kron(segments[index] > 0, numpy.ones((scale, scale), bool))
        fits = [t for t in range(image.Rows - rows * scale + 1) if not (red[t : t + rows * scale] & inside).any()]
        if top == 0 or not fits:
            object_to("judge", f"{path.name}: words or outline cover the image")
        if bool(red.any()) != bool(inside.any()):
            object_to("judge", f"{path.name}: an outline {red.any()}, a finding {inside.any()}")
    missing = {index for index in range(len(segments)) if (segments[index] > 0).any()} - shown
    if missing:
        object_to("judge", f"slices {sorted(missing)} show a finding and have no picture")


# Number in the plan, tracking identifier and type of each structure that is seen.
STRUCTURES = [(1, "m1", "414722000"), (3, "m2", "414723005")]


def judge_structures(path, meant, structures, even):
    seg = highdicom.seg.segread(path)
    if seg.ContentLabel != "STRUCTURES" or seg.number_of_segments != len(STRUCTURES):
        object_to("highdicom", f"{seg.ContentLabel} with {seg.number_of_segments} segments")
    read = pixels_by_source(seg, meant["sources"])
    for index, (value, name, code) in enumerate(STRUCTURES):
        if not numpy.array_equal(read[..., index] > 0, structures == value):
            object_to("highdicom", f"structure {name} is not what was meant")
        said = seg.get_segment_description(index + 1)
        if (said.tracking_id, said.segmented_property_type.value) != (name, code):
            object_to("highdicom", f"structure {name} is {said.tracking_id}, {said.segmented_property_type}")
        if said.segmented_property_category.value != "123037004":
            object_to("highdicom", f"structure {name} is a {said.segmented_property_category}")
    if even:
        judge_numbers(path, [(index + 1, structures == value) for index, (value, _, _) in enumerate(STRUCTURES)])


def judge_numbers(path, wanted):
    """dcmqi finds as many voxels of each number as were meant."""
    with tempfile.TemporaryDirectory() as out:
        code, said = run(
            BIN / "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "--prefix", "s", "-t", "nii"
        )
        files = sorted(Path(out).glob("*.nii*"))
        if code != 0 or not files:
            object_to("dcmqi", f"segimage2itkimage: {code}: {said[-300:]}")
            return
        images = [numpy.asarray(nibabel.load(f).dataobj) for f in files]
        for number, mask in wanted:
            held = max(int((image == number).sum()) for image in images)
            if held != int(mask.sum()):
                object_to("dcmqi", f"{path.name}: segment {number} has {held} voxels")


def judge_label_map(path, meant, segments, even):
    seg = highdicom.seg.segread(path)
    if seg.segmentation_type.value != "LABELMAP":
        object_to("highdicom", f"{seg.segmentation_type}")
    numbers = [finding["segment"] for finding in meant["findings"]]
    read = pixels_by_source(seg, meant["sources"], segment_numbers=numbers)
    for index, finding in enumerate(meant["findings"]):
        if not numpy.array_equal(read[..., index] > 0, segments == finding["segment"]):
            object_to("highdicom", f"segment {finding['segment']} is not the mask that was meant")
    if even:
        judge_numbers(path, [(number, segments == number) for number in numbers])


def judge_key_objects(path, meant, segments):
    document = pydicom.dcmread(path)
    selected = [
        list(key_of(item.ReferencedSOPSequence[0]))
        for item in document.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    wanted = [key for index, key in enumerate(meant["sources"]) if (segments[index] > 0).any()]
    if selected != wanted:
        object_to("judge", f"{len(selected)} images are selected, {len(wanted)} show a finding")
    read = highdicom.ko.KeyObjectSelectionDocument.from_dataset(document)
    if len(read.content.get_references()) != len(wanted):
        object_to("highdicom", f"{len(read.content.get_references())} references")
    if any(read.resolve_reference(uid)[2] != uid for uid, _ in wanted):
        object_to("highdicom", "a reference leads to another image")
    code, said = run("dsrdump", "+Pn", path)
    words = " ".join(said.split()).lower()
    if code != 0 or "error" in words or "not for clinical use" not in words or "of interest" not in words:
        object_to("dcmtk", f"dsrdump: {said[-300:]}")


tell(main)
