"""Opens a folder of results with every outside reader that we know and says what each objects to.

usage: judge.py FOLDER [--even]

FOLDER holds ct*.dcm, pm.dcm (entropy, 16 bit), pm-float.dcm (the same), pm-QUANTITY.dcm of the further maps, sr.dcm,
seg.dcm when there is a finding, with the same mask as a reader edited and drew it (seg-edited.dcm, seg-drawn.dcm), and what was meant by them: segments.u16, entropy.f32 and QUANTITY.f32 (slices, rows,
columns, little endian) and meant.json.
--even says that the source is evenly spaced and not sheared, so that readers must rebuild a regular volume from it.
Exits 1 after the objections, if there is one.
"""

import json
import tempfile
from pathlib import Path

import highdicom
import nibabel
import numpy
import pydicom
from readers import BIN, dcentvfy, dciodvfy, key_of, object_to, pixels_by_source, places_of, run, tell


def main(folder, even):
    meant = json.loads((folder / "meant.json").read_text())
    shape = tuple(meant["shape"])
    segments = numpy.fromfile(folder / "segments.u16", "<u2").reshape(shape)
    further = sorted(path.stem.removeprefix("pm-") for path in folder.glob("pm-*.dcm") if path.stem != "pm-float")
    values = {name: numpy.fromfile(folder / f"{name}.f32", "<f4").reshape(shape) for name in ("entropy", *further)}
    source = sorted(folder.glob("ct*.dcm"))
    maps = {"pm.dcm": values["entropy"], "pm-float.dcm": values["entropy"]}
    maps |= {f"pm-{name}.dcm": values[name] for name in further}
    masks = {"seg.dcm": "AUTOMATIC", "seg-edited.dcm": "SEMIAUTOMATIC", "seg-drawn.dcm": "MANUAL"}
    masks = {folder / name: algorithm for name, algorithm in masks.items() if (folder / name).exists()}
    results = [*masks, *(folder / name for name in (*maps, "sr.dcm"))]
    results = [path for path in results if path.exists()]

    known = dciodvfy(source[0])
    for path in results:
        for error in sorted(dciodvfy(path) - known):
            object_to("dciodvfy", f"{path.name}: {error}")

    dcentvfy(source, [*(folder / n for n in ("pm.dcm", "sr.dcm")), *masks])

    for path in results:
        if path.name != "sr.dcm":
            judge_placement(path, source)
    for path, algorithm in masks.items():
        judge_seg(path, algorithm, meant, segments, even)
    if meant["findings"] and len(masks) != 3:
        object_to("judge", "findings, but not three SEGs")
    judge_pm(folder, meant, maps, even)
    judge_sr(folder, meant)


def judge_placement(path, source):
    """Each frame lies where the instance lies that it names, with its orientation and spacing."""
    image = pydicom.dcmread(path)
    places = dict(place for p in source for place in places_of(pydicom.dcmread(p, stop_before_pixels=True)))
    shared = image.SharedFunctionalGroupsSequence[0]
    for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence, 1):
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        named = places[key_of(reference)]
        measures = (frame if "PixelMeasuresSequence" in frame else shared).PixelMeasuresSequence[0]
        said = {
            "ImagePositionPatient": frame.PlanePositionSequence[0].ImagePositionPatient,
            "ImageOrientationPatient": shared.PlaneOrientationSequence[0].ImageOrientationPatient,
            "PixelSpacing": measures.PixelSpacing,
            "SliceThickness": [measures.SliceThickness],
        }
        for keyword, values in said.items():
            wanted = numpy.atleast_1d(numpy.array(named[keyword].value, float))
            if numpy.abs(numpy.array(values, float) - wanted).max() > 2e-6:
                object_to("pydicom", f"{path.name}: frame {number}: {keyword} is {values}, the source's is {wanted}")
        if reference.SpatialLocationsPreserved != "YES":
            object_to("pydicom", f"{path.name}: frame {number} does not preserve locations")


def lps(affine, index):
    """Where ITK's NIfTI says that a voxel is, in LPS."""
    return (affine @ numpy.append(index, 1.0))[:3] * [-1, -1, 1]


def judge_seg(path, algorithm, meant, segments, even):
    seg = highdicom.seg.segread(path)
    read = pixels_by_source(seg, meant["sources"])
    if seg.number_of_segments != len(meant["findings"]):
        object_to("highdicom", f"{seg.number_of_segments} segments")
    for index, finding in enumerate(meant["findings"]):
        wanted = segments == finding["segment"]
        if not numpy.array_equal(read[..., index] > 0, wanted):
            object_to("highdicom", f"segment {index + 1} by source instance is not the mask that was meant")
        description = seg.get_segment_description(finding["segment"])
        if description.tracking_id != finding["id"]:
            object_to("highdicom", f"{path.name}: segment {index + 1} is tracked as {description.tracking_id}")
        if description.algorithm_type.value != algorithm:
            object_to("highdicom", f"{path.name}: segment {index + 1} is {description.algorithm_type}")
    if not even:
        return
    volume = seg.get_volume()
    if int((volume.array > 0).sum()) != int((segments > 0).sum()):
        object_to("highdicom", f"the volume holds {int((volume.array > 0).sum())} voxels")
    with tempfile.TemporaryDirectory() as out:
        code, said = run(
            BIN / "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "--prefix", "s", "-t", "nii"
        )
        files = sorted(Path(out).glob("*.nii*"))
        if code != 0 or not files:
            object_to("dcmqi", f"segimage2itkimage: {code}: {said[-300:]}")
            return
        images = [nibabel.load(f) for f in files]
        for finding in meant["findings"]:
            # One file a segment, which holds the segment's number.
            held = [(i.affine, numpy.argwhere(numpy.asarray(i.dataobj) == finding["segment"])) for i in images]
            affine, voxels = max(held, key=lambda pair: len(pair[1]))
            wanted = int((segments == finding["segment"]).sum())
            if len(voxels) != wanted:
                object_to("dcmqi", f"{finding['id']} has {len(voxels)} voxels, meant were {wanted}")
                continue
            center = lps(affine, voxels.mean(axis=0))
            if numpy.abs(center - finding["center_mm"]).max() > 0.01:
                object_to("dcmqi", f"{finding['id']} is at {center}, meant was {finding['center_mm']}")


def judge_pm(folder, meant, maps, even):
    entropy = maps["pm.dcm"]
    for name, values in maps.items():
        image = highdicom.imread(folder / name)
        frames = image.get_frames(apply_real_world_transform=True)
        if frames.min() < 0 or frames.max() > 1:
            object_to("highdicom", f"{name}: values from {frames.min()} to {frames.max()}")
        shown = set()
        for frame, item in zip(frames, image.PerFrameFunctionalGroupsSequence):
            reference = key_of(item.DerivationImageSequence[0].SourceImageSequence[0])
            slice_index = meant["sources"].index(list(reference))
            shown.add(slice_index)
            worst = float(numpy.abs(frame - values[slice_index]).max())
            if worst > 1 / 65535:
                object_to("highdicom", f"{name}: slice {slice_index} is off by {worst}")
        if abs(frames.max() - values.max()) > 1 / 65535:
            object_to("highdicom", f"{name}: the highest value is {frames.max()!r}, meant was {values.max()!r}")
        missing = [i for i in range(len(entropy)) if i not in shown and entropy[i].max() > 0.001]
        if missing:
            object_to("highdicom", f"{name}: slices {missing} have no frame")
        if even:
            volume = image.get_volume(apply_real_world_transform=True)
            if volume.array.shape[0] != len(shown):
                object_to("highdicom", f"{name}: a volume of {volume.array.shape}")
    if not even:
        return
    # dcmqi reads float maps only: 16-bit ones end it with a segmentation fault, whoever wrote them.
    with tempfile.TemporaryDirectory() as out:
        code, said = run(
            BIN / "paramap2itkimage", "--inputDICOM", folder / "pm-float.dcm",
            "--outputDirectory", out, "--prefix", "p", "-t", "nii",
        )  # fmt: skip
        files = sorted(Path(out).glob("*.nii*"))
        if code != 0 or not files:
            object_to("dcmqi", f"paramap2itkimage: {code}: {said[-300:]}")
        else:
            image = nibabel.load(files[0])
            values = numpy.asarray(image.dataobj).transpose(2, 1, 0)
            first = min(shown)
            # Float maps have steps of 1/65536: exact in binary, so that rounding here gives the same values.
            sources, meant = meant["sources"], numpy.round(entropy[first : max(shown) + 1] * 65536) / 65536
            if values.shape != meant.shape or numpy.abs(values - meant).max() > 1 / 65536:
                object_to("dcmqi", "the float map is not the entropy that was meant")
            source = [place for path in sorted(folder.glob("ct*.dcm")) for place in places_of(pydicom.dcmread(path))]
            source = dict(source)[tuple(sources[first])].ImagePositionPatient
            if numpy.abs(lps(image.affine, [0, 0, 0]) - numpy.array(source, float)).max() > 0.01:
                object_to("dcmqi", f"the float map begins at {lps(image.affine, [0, 0, 0])}, meant was {source}")


def judge_sr(folder, meant):
    path = folder / "sr.dcm"
    report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    if len(groups) != len(meant["findings"]):
        object_to("highdicom", f"{len(groups)} volumetric groups")
    volume = highdicom.sr.CodedConcept("118565006", "SCT", "Volume")
    for group, finding in zip(groups, meant["findings"]):
        measured = group.get_measurements(volume)
        if len(measured) != 1 or abs(measured[0].value - finding["volume_ml"]) > 0.0005:
            object_to("highdicom", f"{finding['id']}: volumes {[m.value for m in measured]}")
        if group.tracking_identifier != finding["id"]:
            object_to("highdicom", f"{finding['id']} is tracked as {group.tracking_identifier}")
        segment = group.referenced_segment
        if segment.referenced_segment_numbers != [finding["segment"]]:
            object_to("highdicom", f"{finding['id']} refers to segments {segment.referenced_segment_numbers}")

    case, midline, aspects = report.content.get_image_measurement_groups()
    if midline.tracking_identifier != "midline":
        object_to("highdicom", f"the midline is tracked as {midline.tracking_identifier}")
    for name, value in (("midline-shift", -4.2), ("midline-lower", -6.4), ("midline-upper", -2.6)):
        measured = midline.get_measurements(highdicom.sr.CodedConcept(name, "99ICTUS", name))
        if [(m.value, m.unit.value) for m in measured] != [(value, "mm")]:
            object_to("highdicom", f"{name}: {[(m.value, m.unit.value) for m in measured]}, meant was {value} mm")

    if aspects.tracking_identifier != "aspects-left":
        object_to("highdicom", f"ASPECTS is tracked as {aspects.tracking_identifier}")
    if [site.laterality.value for site in aspects.finding_sites] != ["7771000"]:
        object_to("highdicom", "ASPECTS is not of the left side")
    for name, value in (("aspects", 8), ("aspects-lower", 7), ("aspects-upper", 9)):
        measured = aspects.get_measurements(highdicom.sr.CodedConcept(name, "99ICTUS", name))
        if [(m.value, m.unit.value) for m in measured] != [(value, "1")]:
            object_to("highdicom", f"{name}: {[(m.value, m.unit.value) for m in measured]}, meant was {value}")
    regions = aspects.get_qualitative_evaluations(highdicom.sr.CodedConcept("affected-region", "99ICTUS", "region"))
    if [region.value.value for region in regions] != ["aspects-i", "aspects-m5"]:
        object_to("highdicom", f"affected regions are {[region.value.value for region in regions]}")

    with tempfile.TemporaryDirectory() as out:
        target = Path(out) / "sr.json"
        code, said = run(BIN / "tid1500reader", "--inputDICOM", path, "--outputMetadata", target)
        if code != 0 or not target.exists():
            object_to("dcmqi", f"tid1500reader: {code}: {said[-300:]}")
        else:
            # One group a finding, one for the case, one for the midline, one for a side's ASPECTS.
            read = json.loads(target.read_text())["Measurements"]
            segments = [group["ReferencedSegment"] for group in read if "ReferencedSegment" in group]
            if segments != [finding["segment"] for finding in meant["findings"]]:
                object_to("dcmqi", f"tid1500reader: segments {segments}")

    code, said = run("dsrdump", "+Pn", path)
    if code != 0 or "Error" in said:
        object_to("dcmtk", f"dsrdump: {said[-300:]}")
    words = " ".join(said.split()).lower()
    for wanted in ("not for clinical use", "flagged", "imaging measurement report"):
        if wanted not in words:
            object_to("dcmtk", f"dsrdump does not show '{wanted}'")
    for unwanted in ("cleared", "probability"):
        if unwanted in words:
            object_to("dcmtk", f"dsrdump shows '{unwanted}'")

    listed = set()
    for study in pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            listed |= {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    others = [p for p in (folder / "seg.dcm", folder / "pm.dcm") if p.exists()]
    wanted = {uid for uid, _ in meant["sources"]} | {pydicom.dcmread(p).SOPInstanceUID for p in others}
    if listed != wanted:
        object_to("judge", f"the evidence lists {len(listed)} instances, meant were {len(wanted)}")


tell(main)
