"""Holds the results of a CT against those of the same head as one multi-frame CT.

usage: judge_twins.py FOLDER

FOLDER holds single/ and frames/, each with source/*.dcm and what `ictus analyze` made of it in results/.
The findings must be the same, masks and maps the same at the same places of the patient, and every reference to the source
must name an image, and a frame of it where it has several, that lies where the result does.
Exits 1 after the objections, if there is one.
"""

import json

import highdicom
import numpy
import pydicom
from pydicom.uid import (
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from readers import BIN, dcentvfy, dciodvfy, key_of, object_to, places_of, run, tell

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
SR = {ComprehensiveSRStorage, "1.2.840.10008.5.1.4.1.1.88.34"}


def main(folder, _even):
    made = {name: Results(folder / name) for name in ("single", "frames")}
    single, frames = made["single"], made["frames"]
    if single.findings != frames.findings:
        differ = [key for key in single.findings if single.findings[key] != frames.findings.get(key)]
        object_to("judge", f"findings.json differs in {differ}")
    if not single.findings["findings"]:
        object_to("judge", "nothing was found, so that nothing is compared")
    if sorted(single.objects) != sorted(frames.objects):
        object_to("judge", f"the objects are {sorted(frames.objects)}, of single slices {sorted(single.objects)}")
    for results in made.values():
        results.judge()
    for name in sorted(single.objects):
        (_, one), (_, other) = single.objects[name], frames.objects.get(name, (None, None))
        if other is None or "PerFrameFunctionalGroupsSequence" not in one:
            continue
        one, other = voxels(one), voxels(other)
        if one.keys() != other.keys():
            object_to("pydicom", f"{name}: frames lie at {len(other.keys() - one.keys())} places where none should")
        for place in one.keys() & other.keys():
            if not numpy.array_equal(one[place], other[place]):
                object_to("pydicom", f"{name}: {place} holds other values")
        if not any(pixels.any() for pixels in one.values()):
            object_to("judge", f"{name} is empty, so that nothing is compared")


class Results:
    """What was made of a source."""

    def __init__(self, folder):
        self.source = sorted((folder / "source").iterdir())
        self.places = dict(place for path in self.source for place in places_of(pydicom.dcmread(path, stop_before_pixels=True)))
        self.objects = {}
        for path in sorted((folder / "results").glob("*.dcm")):
            # The end of a UID, which differs.
            self.objects[path.stem.rpartition("-")[0]] = path, pydicom.dcmread(path)
        self.findings = json.loads((folder / "results/findings.json").read_text())
        self.findings.pop("timings")
        for model in self.findings["models"]:
            model.pop("duration_ms")

    def judge(self):
        known = dciodvfy(self.source[0])
        paths = [path for path, _ in self.objects.values()]
        for path in paths:
            for error in sorted(dciodvfy(path) - known):
                object_to("dciodvfy", f"{path.name}: {error}")
        dcentvfy(self.source, paths)
        own = {image.SOPInstanceUID for _, image in self.objects.values()}
        for name, (path, image) in self.objects.items():
            self.judge_references(name, image, own)
            self.judge_readers(name, path, image)

    def judge_references(self, name, image, own):
        """Every reference in the dataset leads to the source or to another result, to a frame where there are several."""
        whole, found = {uid for uid, _ in self.places}, 0
        for item in items(image):
            if "ReferencedSOPInstanceUID" not in item or item.ReferencedSOPInstanceUID in own:
                continue
            found += 1
            uid, number = key_of(item)
            # The lists of what was looked at name instances: their items have no place for frames.
            if "ReferencedFrameNumber" not in item and uid in whole and self.lists(image, item):
                continue
            if (uid, number) not in self.places:
                object_to("pydicom", f"{name}: there is no frame {number} of {uid} in the source")
        if not found:
            object_to("pydicom", f"{name} refers to nothing of the source")
        for number, frame in enumerate(image.get("PerFrameFunctionalGroupsSequence", []), 1):
            named = self.places.get(key_of(frame.DerivationImageSequence[0].SourceImageSequence[0]))
            at = numpy.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            if named is None or numpy.abs(at - numpy.array(named.ImagePositionPatient, float)).max() > 2e-6:
                object_to("pydicom", f"{name}: frame {number} lies elsewhere than the image that it names")

    @staticmethod
    def lists(image, item):
        """Whether an item stands in a list of instances: referenced series and evidence."""
        listed = [*image.get("ReferencedSeriesSequence", [])]
        for study in image.get("CurrentRequestedProcedureEvidenceSequence", []):
            listed += study.ReferencedSeriesSequence
        lists = [s for series in listed for s in (*series.get("ReferencedInstanceSequence", []), *series.get("ReferencedSOPSequence", []))]
        return any(item is one for one in lists)

    def judge_readers(self, name, path, image):
        """Opens each object with the reader that is made for it."""
        kind = image.SOPClassUID
        if kind in (SegmentationStorage, LABEL_MAP):
            seg = highdicom.seg.segread(path)
            named = {uid for _, _, uid in seg.get_source_image_uids()}
            if not named <= {uid for uid, _ in self.places}:
                object_to("highdicom", f"{name} names images that are not in the source")
        elif kind == ParametricMapStorage:
            highdicom.imread(path).get_frames(apply_real_world_transform=True)
        elif kind in SR:
            self.judge_report(name, path)
        elif kind == KeyObjectSelectionDocumentStorage:
            if not highdicom.ko.KeyObjectSelectionDocument.from_dataset(image).content.get_references():
                object_to("highdicom", f"{name} selects nothing")
        elif kind != SecondaryCaptureImageStorage:
            object_to("judge", f"{name} is a {kind.name}, which nobody judges")

    def judge_report(self, name, path):
        report = highdicom.sr.srread(path)
        groups = report.content.get_volumetric_roi_measurement_groups()
        if len(groups) != len(self.findings["findings"]):
            object_to("highdicom", f"{name}: {len(groups)} volumetric groups")
        code, said = run("dsrdump", "+Pn", path)
        if code != 0 or "Error" in said:
            object_to("dcmtk", f"dsrdump: {said[-300:]}")
        code, said = run(BIN / "tid1500reader", "--inputDICOM", path, "--outputMetadata", path.with_suffix(".json"))
        if code != 0:
            object_to("dcmqi", f"tid1500reader: {code}: {said[-300:]}")


def items(dataset):
    """Every item below a dataset."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from items(item)


def voxels(image):
    """Where each frame lies, with its segment or quantity → its pixels."""
    found, pixels = {}, image.pixel_array
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    for frame, values in zip(image.PerFrameFunctionalGroupsSequence, pixels):
        segment = frame.get("SegmentIdentificationSequence")
        segment = segment[0].ReferencedSegmentNumber if segment else None
        place = tuple(round(float(v), 4) for v in frame.PlanePositionSequence[0].ImagePositionPatient)
        if (segment, place) in found:
            object_to("pydicom", f"two frames of segment {segment} lie at {place}")
        found[segment, place] = values
    return found


tell(main)
