"""Writes labels of voxels as Segmentations on CT images, with highdicom, as a department's tool would.

usage: label_mask.py CT_FOLDER LABELS OUT FORM NAME...

LABELS: a byte a voxel, slices by z; NAME is the SegmentLabel of the values 1, 2, ….
FORM: binary, labelmap (RLE), parts (OUT is a folder with one Segmentation a name), overlapping (the first name's voxels are the second's too) or undescribed (SegmentSequence lacks the first name).
"""

import sys
from pathlib import Path

import highdicom
import numpy
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

folder, labels, out, form, *names = sys.argv[1:]
images = sorted((pydicom.dcmread(path) for path in Path(folder).iterdir()), key=lambda i: float(i.ImagePositionPatient[2]))
for image in images:
    for keyword in ("Manufacturer", "ManufacturerModelName", "ReferringPhysicianName", "PositionReferenceIndicator"):
        if keyword not in image:
            setattr(image, keyword, "")
truth = numpy.fromfile(labels, numpy.uint8).reshape(len(images), images[0].Rows, images[0].Columns)


def write(path, values):
    """One Segmentation with a segment for each of the values that occur."""
    values = [value for value in values if (truth == value).any()]
    channels = numpy.stack([truth == value for value in values], axis=-1).astype(numpy.uint8)
    if form == "overlapping":
        channels[..., 1] |= channels[..., 0]
    pixels = channels if form != "labelmap" else (channels * numpy.arange(1, len(values) + 1)).sum(-1).astype(numpy.uint8)
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=names[value - 1],
            segmented_property_category=highdicom.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
            segmented_property_type=highdicom.sr.CodedConcept("50960005", "SCT", "Hemorrhage"),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, value in enumerate(values, 1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type="LABELMAP" if form == "labelmap" else "BINARY",
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=50,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="a tool",
        manufacturer_model_name="a tool",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=RLELossless if form == "labelmap" else ExplicitVRLittleEndian,
    )
    if form == "undescribed":
        del made.SegmentSequence[0]
    made.save_as(path)


every = range(1, len(names) + 1)
if form == "parts":
    Path(out).mkdir()
    for value in every:
        if (truth == value).any():
            write(f"{out}/{value}.dcm", [value])
else:
    write(out, every)
