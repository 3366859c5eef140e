"""Single slices as one multi-frame CT, by another hand than ours.

usage: enhanced.py KIND OUT SLICE...

KIND: enhanced (Enhanced CT, by pydicom, frames in the order given) or legacy (Legacy Converted Enhanced CT, by highdicom);
or an Enhanced CT that is not one stack at one time: temporal, phases, stacks, kernels, dimension; or one without its
functional groups: groups.
"""

import sys

import highdicom
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
# What single slices say of themselves and an enhanced CT in its groups, or not at all.
OF_A_SLICE = """
    ImageType SOPClassUID SOPInstanceUID InstanceNumber AcquisitionNumber AcquisitionDate AcquisitionTime ImagePositionPatient
    ImageOrientationPatient SliceThickness PixelSpacing RescaleIntercept RescaleSlope RescaleType ConvolutionKernel KVP
    GantryDetectorTilt WindowCenter WindowWidth ContentDate ContentTime PixelData
""".split()


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return Sequence([made])


def dimension(organization, pointer, group):
    made = Dataset()
    made.DimensionOrganizationUID = organization
    made.DimensionIndexPointer = Tag(pointer)
    made.FunctionalGroupPointer = Tag(group)
    return made


def enhanced(slices, kind):
    first = slices[0]
    made = Dataset()
    for element in first:
        if element.keyword not in OF_A_SLICE:
            made.add(element)
    made.SOPClassUID = ENHANCED_CT
    made.SOPInstanceUID = generate_uid(entropy_srcs=[kind] + [s.SOPInstanceUID for s in slices])
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.InstanceNumber = 1
    made.AcquisitionNumber = 1
    made.AcquisitionDateTime = "20260102101500"
    made.AcquisitionDuration = 1.0
    made.ContentDate, made.ContentTime = "20260102", "101501"
    made.ContentQualification = "RESEARCH"
    made.PixelPresentation = "MONOCHROME"
    made.VolumetricProperties = "VOLUME"
    made.VolumeBasedCalculationTechnique = "NONE"
    made.BurnedInAnnotation = "NO"
    made.LossyImageCompression = "00"
    made.PresentationLUTShape = "IDENTITY"
    made.NumberOfFrames = len(slices)
    organization = generate_uid(entropy_srcs=["dimensions", made.SOPInstanceUID])
    made.DimensionOrganizationSequence = item(DimensionOrganizationUID=organization)
    made.DimensionIndexSequence = Sequence([
        dimension(organization, "StackID", "FrameContentSequence"),
        dimension(organization, "InStackPositionNumber", "FrameContentSequence"),
    ])  # fmt: skip
    if kind == "dimension":
        made.DimensionIndexSequence.append(dimension(organization, "KVP", "CTXRayDetailsSequence"))
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=first.ImageOrientationPatient)
    shared.CTImageFrameTypeSequence = item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for number, single in enumerate(slices, 1):
        frame = Dataset()
        half = int(number > len(slices) // 2)
        content = item(
            FrameAcquisitionNumber=1,
            FrameReferenceDateTime="20260102101500",
            FrameAcquisitionDateTime="20260102101500",
            FrameAcquisitionDuration=1.0,
            StackID=str(1 + half) if kind == "stacks" else "1",
            InStackPositionNumber=number,
            DimensionIndexValues=[1, number] + [1 + half] * (kind == "dimension"),
        )
        if kind == "temporal":
            content[0].TemporalPositionIndex = 1 + half
        frame.FrameContentSequence = content
        if kind == "phases":
            frame.CardiacSynchronizationSequence = item(NominalPercentageOfCardiacPhase=float(10 * half))
        frame.PlanePositionSequence = item(ImagePositionPatient=single.ImagePositionPatient)
        frame.PixelMeasuresSequence = item(PixelSpacing=single.PixelSpacing, SliceThickness=single.SliceThickness)
        frame.PixelValueTransformationSequence = item(
            RescaleIntercept=single.RescaleIntercept, RescaleSlope=single.RescaleSlope, RescaleType="HU"
        )
        kernel = "BONE" if kind == "kernels" and half else single.get("ConvolutionKernel", "STANDARD")
        frame.CTReconstructionSequence = item(ConvolutionKernel=kernel)
        frame.FrameVOILUTSequence = item(WindowCenter=40, WindowWidth=80)
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Sequence([] if kind == "groups" else frames)
    made.PixelData = b"".join(s.PixelData[: s.Rows * s.Columns * s.BitsAllocated // 8] for s in slices)
    made["PixelData"].VR = "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def main(kind, out, *names):
    slices = [pydicom.dcmread(name) for name in names]
    if kind == "legacy":
        uid = generate_uid(entropy_srcs=["legacy"] + [s.SOPInstanceUID for s in slices])
        made = highdicom.legacy.LegacyConvertedEnhancedCTImage(slices, slices[0].SeriesInstanceUID, 2, uid, 1)
    else:
        made = enhanced(slices, kind)
    made.save_as(out, enforce_file_format=True)


main(*sys.argv[1:])
