"""Draws a mask on CT images as a reader's tool would: with highdicom, under UIDs of its own.

usage: edit_mask.py CT_FOLDER OUT FORM [CODE]

FORM: binary, labelmap (RLE), fractional, turned (rows and columns exchanged) or moved (one slice beside the stack).
Two rows of three pixels on the slices 10 and 11 (counted from 0 along z), and one pixel more on the latter.
"""

import copy
import sys
from pathlib import Path

import highdicom
import numpy
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

folder, out, form = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
value = sys.argv[4] if len(sys.argv) > 4 else "50960005"
images = sorted((pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=lambda i: float(i.ImagePositionPatient[2]))
for image in images:
    for keyword in ("Manufacturer", "ManufacturerModelName", "ReferringPhysicianName", "PositionReferenceIndicator"):
        if keyword not in image:
            setattr(image, keyword, "")
mask = numpy.zeros((len(images), 8, 8), numpy.uint8)
mask[10:12, 2:4, 1:4] = 1
mask[11, 7, 7] = 1
if form == "moved":
    images = [copy.deepcopy(image) for image in images]
    for image in images:
        image.ImagePositionPatient[2] = float(image.ImagePositionPatient[2]) + 2.5
if form == "turned":
    images = [copy.deepcopy(image) for image in images]
    for image in images:
        image.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
description = highdicom.seg.SegmentDescription(
    segment_number=1,
    segment_label="bleed",
    segmented_property_category=highdicom.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
    segmented_property_type=highdicom.sr.CodedConcept(value, "SCT", "drawn"),
    algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
)
kind = {"labelmap": "LABELMAP", "fractional": "FRACTIONAL"}.get(form, "BINARY")
seg = highdicom.seg.Segmentation(
    source_images=images,
    pixel_array=mask,
    segmentation_type=kind,
    segment_descriptions=[description],
    series_instance_uid=highdicom.UID(),
    series_number=50,
    sop_instance_uid=highdicom.UID(),
    instance_number=1,
    manufacturer="a tool",
    manufacturer_model_name="a tool",
    software_versions="1",
    device_serial_number="1",
    content_creator_name="Else^Where",
    transfer_syntax_uid=RLELossless if form == "labelmap" else ExplicitVRLittleEndian,
)
seg.save_as(out)
