"""What the judges share: how an outside reader is called, and how its objections are kept and told."""

import subprocess
import sys
from pathlib import Path

import pydicom

BIN = Path(sys.executable).parent
objections = []


def object_to(who, what):
    objections.append(f"{who}: {what}")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout + done.stderr


def dciodvfy(path):
    """Errors of a file, without the words that differ between a missing and an empty attribute."""
    _, said = run(BIN / "dciodvfy", "-new", path)
    lines = [line for line in said.splitlines() if line.startswith(("Error", "Abort"))]
    return {line.replace("Missing attribute", "attribute").replace("Empty attribute", "attribute") for line in lines}


def dcentvfy(source, made):
    """Objects to what does not hold together; what is said of the source is the source's own: a converted one names its slices."""
    _, said = run(BIN / "dcentvfy", *source, *made)
    for line in said.splitlines():
        # Its warnings are about the level at which SR and images hold an AccessionNumber, which both may.
        if line.startswith("Error") and not any(str(path) in line for path in source):
            object_to("dcentvfy", line)


def tell(main):
    """Judges the folder that the command line names; exits 1 after the objections, if there is one."""
    main(Path(sys.argv[1]), "--even" in sys.argv[2:])
    print("\n".join(f"OBJECTION {o}" for o in objections) or "no objection")
    sys.exit(bool(objections))


def key_of(reference):
    """What a reference names: an instance, and a frame of it where it has several."""
    return reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")


def places_of(image):
    """Each slice of a source as references name it, and what its header says of its place."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [((image.SOPInstanceUID, None), image)]
    keywords = {
        "PlanePositionSequence": ["ImagePositionPatient"],
        "PlaneOrientationSequence": ["ImageOrientationPatient"],
        "PixelMeasuresSequence": ["PixelSpacing", "SliceThickness"],
    }
    shared, slices = image.SharedFunctionalGroupsSequence[0], []
    for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence, 1):
        slice_ = pydicom.Dataset()
        for group, names in keywords.items():
            item = (frame if group in frame else shared)[group][0]
            for name in names:
                slice_[name] = item[name]
        slices.append(((image.SOPInstanceUID, number), slice_))
    return slices


def pixels_by_source(seg, sources, **options):
    """The masks of a SEG on the slices that it was made on, by highdicom."""
    uids, frames = zip(*sources)
    options |= {"ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
    if frames[0] is None:
        return seg.get_pixels_by_source_instance(uids, **options)
    return seg.get_pixels_by_source_frame(uids[0], frames, **options)
