"""Probes any DICOMweb origin server for the rules of PS3.18, each with its section.

usage: dicomweb.py BASE_URL [--report FILE] [--origin ORIGIN]

Stores synthetic instances under UIDs of its own, asks for them in every way, and prints a line a rule.
With --origin, pages of that origin are said to be let in (CORS).
Exits 1 when a rule is broken. It knows nothing of ictus: the same file probes any other server for comparison.
"""

import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from email.parser import BytesParser
from email.policy import HTTP

import dicomweb_worklist
import numpy
import pydicom
import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

XML = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
JSON = "application/dicom+json"
OCTETS = "application/octet-stream"
STUDY, OTHER = generate_uid(), generate_uid()
SERIES, THIN, OTHER_SERIES = generate_uid(), generate_uid(), generate_uid()
MARK = "PROBE" + generate_uid()[-8:]
rules = []


def rule(section, text):
    def keep(check):
        rules.append((section, text, check))
        return check

    return keep


def ct(study, series, number, patient=f"{MARK}A", name="Probe^Anna", syntax=ExplicitVRLittleEndian):
    """An 8 x 8 CT slice; pixel n has the value 1000 + n."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyDate, image.StudyTime = "20260131", "101500"
    image.SeriesDate, image.SeriesTime = "20260131", "101530"
    image.AccessionNumber, image.Modality = f"{MARK}ACC", "CT"
    image.ReferringPhysicianName = "Referrer^Rita"
    image.StudyDescription, image.SeriesDescription = "Head probe", f"Series {series[-4:]}"
    image.PatientName, image.PatientID = name, patient
    image.PatientBirthDate, image.PatientSex = "19500102", "F"
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.StudyID, image.SeriesNumber, image.InstanceNumber = "S1", 2, number
    image.PerformedProcedureStepStartDate, image.PerformedProcedureStepStartTime = "20260131", "101500"
    step = Dataset()
    step.ScheduledProcedureStepID, step.RequestedProcedureID = "STEP7", "PROC9"
    image.RequestAttributesSequence = Sequence([step])
    image.FrameOfReferenceUID = f"{study[:60]}1.1"
    image.ImagePositionPatient = [0, 0, 5 * number]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SliceThickness, image.PixelSpacing = 5, [1, 1]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = 8, 8
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.WindowCenter, image.WindowWidth = 40, 80
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    image.PixelData = numpy.arange(1000, 1064, dtype="<u2").tobytes()
    if syntax == RLELossless:
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.compress(RLELossless, generate_instance_uid=False)
    return image


def written(image):
    out = io.BytesIO()
    image.save_as(out, enforce_file_format=True)
    return out.getvalue()


def multipart(parts, kind="application/dicom", boundary="probe-boundary"):
    body = b""
    for headers, value in parts:
        body += f"--{boundary}\r\n{headers}\r\n\r\n".encode() + value + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}


def parts_of(answer):
    kind = answer.headers["Content-Type"]
    assert kind.lower().startswith("multipart/related"), kind
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + answer.content)
    return [(part, part.get_payload(decode=True)) for part in message.iter_parts()]


def equal(found, wanted):
    assert found == wanted, f"found {found!r}, expected {wanted!r}"


def status(answer, *wanted):
    assert answer.status_code in wanted, f"status {answer.status_code}, expected {' or '.join(map(str, wanted))}"
    return answer


class Server:
    def __init__(self, base):
        self.base = base.rstrip("/")
        self.session = requests.Session()

    def get(self, path, accept=None, headers=None, **parameters):
        every = {"Accept": accept, **(headers or {})}
        return self.session.get(self.base + path, headers=every, params=parameters, timeout=60)

    def find(self, path, **parameters):
        answer = self.get(path, JSON, **parameters)
        if answer.status_code == 204 or not answer.content:
            return []
        status(answer, 200)
        return answer.json()

    def post(self, path, body, headers, accept=JSON):
        return self.session.post(self.base + path, data=body, headers={"Accept": accept, **headers}, timeout=60)

    def stow(self, *images, path="/studies"):
        body, headers = multipart([("Content-Type: application/dicom", written(image)) for image in images])
        return self.post(path, body, headers)


IMAGES = [ct(STUDY, SERIES, 1), ct(STUDY, SERIES, 2), ct(STUDY, THIN, 1)]
FOREIGN = ct(OTHER, OTHER_SERIES, 1, f"{MARK}B", "Probe^Berta=プローブ")
PACKED = ct(STUDY, THIN, 2, syntax=RLELossless)
IMPLICIT = ct(STUDY, THIN, 3, syntax=ImplicitVRLittleEndian)
S = f"/studies/{STUDY}"
E = f"{S}/series/{SERIES}"
I = f"{E}/instances/{IMAGES[0].SOPInstanceUID}"
P = f"{S}/series/{THIN}/instances/{PACKED.SOPInstanceUID}"
PIXELS = IMAGES[0].PixelData


def values(found, tag):
    return [item.get(tag, {}).get("Value", [None])[0] for item in found]


# ---- STOW-RS


@rule("10.5.3.1", "200 when all instances are stored")
def _(server):
    answer = status(server.stow(*IMAGES, PACKED, IMPLICIT), 200)
    said = answer.json()
    equal(len(said["00081199"]["Value"]), 5)


@rule("I.2", "the answer has the Retrieve URL of the study with VR UR, and of each instance")
def _(server):
    said = status(server.stow(FOREIGN), 200).json()
    equal(said["00081190"]["vr"], "UR")
    assert said["00081190"]["Value"][0].endswith(f"/studies/{OTHER}"), said["00081190"]
    item = said["00081199"]["Value"][0]
    assert FOREIGN.SOPInstanceUID in item["00081190"]["Value"][0]
    equal(item["00081155"]["Value"], [FOREIGN.SOPInstanceUID])
    assert "00081198" not in said, "FailedSOPSequence without a failure"


@rule("10.5.3.1", "202 when only some are stored, with the reason of each failure")
def _(server):
    body, headers = multipart(
        [("Content-Type: application/dicom", written(IMAGES[0])), ("Content-Type: application/dicom", b"no DICOM")]
    )
    said = status(server.post("/studies", body, headers), 202).json()
    equal(len(said["00081199"]["Value"]), 1)


@rule("10.5.3.1", "409 when none can be stored")
def _(server):
    body, headers = multipart([("Content-Type: application/dicom", b"no DICOM")])
    status(server.post("/studies", body, headers), 409)


@rule("10.5.1", "an instance of another study than the path's is refused")
def _(server):
    answer = server.stow(IMAGES[0], path=f"/studies/{OTHER}")
    status(answer, 409)


@rule("8.5", "400 for a body without a boundary, 415 for a type that is no store")
def _(server):
    status(server.post("/studies", b"x", {"Content-Type": 'multipart/related; type="application/dicom"'}), 400)
    status(server.post("/studies", b"x", {"Content-Type": "text/plain"}), 415)


@rule("8.7", "parameters of Content-Type are alike with and without quotes")
def _(server):
    body, _ = multipart([("Content-Type: application/dicom", written(IMAGES[1]))])
    for kind in ("multipart/related; type=application/dicom; boundary=probe-boundary",
                 'Multipart/Related; Type="application/dicom"; boundary="probe-boundary"'):
        status(server.post("/studies", body, {"Content-Type": kind}), 200)


@rule("10.5.3", "the answer comes in XML when that is accepted")
def _(server):
    body, headers = multipart([("Content-Type: application/dicom", written(IMAGES[0]))])
    answer = status(server.post("/studies", body, headers, accept="application/dicom+xml"), 200)
    equal(answer.headers["Content-Type"].split(";")[0], "application/dicom+xml")
    equal(ET.fromstring(answer.content).tag, f"{XML}NativeDicomModel")


@rule("10.5.1.2", "metadata in JSON with bulk data beside it is stored")
def _(server):
    image = ct(OTHER, OTHER_SERIES, 5, f"{MARK}B", "Probe^Berta=プローブ")
    dataset = image.to_json_dict(1024, lambda element: "pixels")
    dataset["7FE00010"] = {"vr": "OW", "BulkDataURI": "pixels"}
    body, headers = multipart(
        [(f"Content-Type: {JSON}", json.dumps([dataset]).encode()),
         (f"Content-Type: {OCTETS}\r\nContent-Location: pixels", PIXELS)], JSON)
    status(server.post("/studies", body, headers), 200)
    frame = server.get(f"/studies/{OTHER}/series/{OTHER_SERIES}/instances/{image.SOPInstanceUID}/frames/1",
                       f'multipart/related; type="{OCTETS}"')
    equal(parts_of(status(frame, 200))[0][1], PIXELS)


# ---- QIDO-RS


@rule("10.6", "searches at every level, below a study and over all")
def _(server):
    for path, count in (("/studies", 2), ("/series", 3), (f"{S}/series", 2), (f"{S}/instances", 5), (f"{E}/instances", 2)):
        found = server.find(path, PatientID=f"{MARK}*")
        equal((path, len(found)), (path, count))
    assert len(server.find("/instances", PatientID=f"{MARK}A")) == 5


@rule("10.6.3.3", "a study has the required attributes")
def _(server):
    found = server.find("/studies", StudyInstanceUID=STUDY)[0]
    for tag in ("00080020", "00080030", "00080050", "00080061", "00080090", "00081190", "00100010", "00100020",
                "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208"):
        assert tag in found, f"{tag} is missing"
    equal((found["00080061"]["Value"], found["00201206"]["Value"], found["00201208"]["Value"]), (["CT"], [2], [5]))


@rule("10.6.3.3", "a series has the required attributes")
def _(server):
    found = server.find(f"{S}/series", SeriesInstanceUID=SERIES)[0]
    for tag in ("00080060", "0008103E", "00081190", "0020000E", "00200011", "00201209", "00400244", "00400245", "00400275"):
        assert tag in found, f"{tag} is missing"
    equal(found["00201209"]["Value"], [2])


@rule("10.6.3.3", "an instance has the required attributes")
def _(server):
    found = server.find(f"{E}/instances", InstanceNumber="2")[0]
    for tag in ("00080016", "00080018", "00081190", "00200013", "00280010", "00280011", "00280100"):
        assert tag in found, f"{tag} is missing"


for key, good, bad in (
    ("StudyDate", "20260131", "20250101"), ("StudyTime", "101500", "110000"),
    ("AccessionNumber", f"{MARK}ACC", "other"), ("ModalitiesInStudy", "CT", "MR"),
    ("ReferringPhysicianName", "Referrer^Rita", "Nobody"), ("PatientName", "Probe^Anna", "Probe^Nobody"),
    ("PatientID", f"{MARK}A", "other"), ("StudyInstanceUID", STUDY, "1.2.3"), ("StudyID", "S1", "S2"),
):
    @rule("Table 10.6.1-5", f"studies are matched by {key}")
    def _(server, key=key, good=good, bad=bad):
        base = {"PatientID": f"{MARK}A"}
        equal(values(server.find("/studies", **{**base, key: good}), "0020000D"), [STUDY])
        equal(server.find("/studies", **{**base, key: bad}), [])


for key, good, bad in (
    ("Modality", "CT", "MR"), ("SeriesInstanceUID", SERIES, "1.2.3"), ("SeriesNumber", "2", "9"),
    ("PerformedProcedureStepStartDate", "20260131", "20250101"),
    ("PerformedProcedureStepStartTime", "101500", "110000"),
    ("RequestAttributesSequence.ScheduledProcedureStepID", "STEP7", "STEP8"),
    ("RequestAttributesSequence.RequestedProcedureID", "PROC9", "PROC8"),
):
    @rule("Table 10.6.1-5", f"series are matched by {key}")
    def _(server, key=key, good=good, bad=bad):
        assert SERIES in values(server.find(f"{S}/series", **{key: good}), "0020000E")
        equal(server.find(f"{S}/series", **{key: bad}), [])


for key, good, bad in (
    ("SOPClassUID", CTImageStorage, "1.2.840.10008.5.1.4.1.1.4"),
    ("SOPInstanceUID", IMAGES[0].SOPInstanceUID, "1.2.3"), ("InstanceNumber", "1", "77"),
):
    @rule("Table 10.6.1-5", f"instances are matched by {key}")
    def _(server, key=key, good=good, bad=bad):
        assert IMAGES[0].SOPInstanceUID in values(server.find(f"{E}/instances", **{key: good}), "00080018")
        equal(server.find(f"{E}/instances", **{key: bad}), [])


@rule("8.3.4.1", "attributes are named by tag, too")
def _(server):
    equal(values(server.find("/studies", **{"00100020": f"{MARK}B"}), "0020000D"), [OTHER])


@rule("C.2.2.2.4 of PS3.4", "wildcards * and ?")
def _(server):
    equal(len(server.find("/studies", PatientID=f"{MARK}*")), 2)
    equal(len(server.find("/studies", PatientID=f"{MARK}?")), 2)
    equal(len(server.find("/studies", PatientID=f"{MARK}A", PatientName="Probe^An*")), 1)


@rule("C.2.2.2.5 of PS3.4", "ranges of dates, open and closed")
def _(server):
    for value, count in (("20260101-20260228", 1), ("-20260131", 1), ("20260131-", 1), ("20260201-", 0)):
        equal((value, len(server.find("/studies", PatientID=f"{MARK}A", StudyDate=value))), (value, count))


@rule("8.3.4.1", "a list of UIDs matches any of them")
def _(server):
    equal(len(server.find("/studies", StudyInstanceUID=f"{STUDY},{OTHER}")), 2)


@rule("C.2.2.2.3 of PS3.4", "an empty value matches everything")
def _(server):
    equal(len(server.find("/studies", PatientID=f"{MARK}A", PatientName="")), 1)


@rule("8.3.4.3", "includefield adds attributes, `all` adds all")
def _(server):
    more = server.find(f"{S}/series", includefield="FrameOfReferenceUID")[0]
    assert more["00200052"]["Value"]
    every = server.find(f"{E}/instances", includefield="all")[0]
    assert "00180050" in every, "SliceThickness is missing from `all`"


@rule("8.3.4.4", "limit and offset page in a stable order")
def _(server):
    every = values(server.find(f"{S}/instances"), "00080018")
    paged = [values(server.find(f"{S}/instances", limit=1, offset=k), "00080018") for k in range(5)]
    equal([one for page in paged for one in page], every)
    equal(values(server.find(f"{S}/instances"), "00080018"), every)


@rule("8.3.4.4.1", "results behind those of a page are counted in a Warning, and none is where there are none")
def _(server):
    for path in (f"{S}/instances", f"{S}/series", "/instances", "/series", "/studies"):
        base = {"PatientID": f"{MARK}*"}
        count = len(server.find(path, **base))
        if count < 2:
            continue
        for offset in (0, 1):
            answer = status(server.get(path, JSON, limit=1, offset=offset, **base), 200)
            equal(len(answer.json()), 1)
            left = count - offset - 1
            said = f"There are {left} additional results that can be requested"
            warning = answer.headers.get("Warning", "")
            assert (said in warning) == bool(left), f"{path}: Warning {warning!r}, expected … {said!r}"
        equal(server.find(path, limit=0, **base), [])


@rule("8.3.4.1.1", "ranges of date and time are one range of moments, those of time alone are not")
def _(server):
    # The study is of 2026-01-31, 10:15:00.
    for date, time, count in (
        ("20260130-20260131", "235900-101500", 1), ("20260130-20260131", "000000-101459", 0),
        ("20260131-20260201", "101500-000000", 1), ("20260131-20260201", "101501-235959", 0),
        ("20260130-20260201", "235900-000100", 1), ("20260131", "100000-110000", 1), ("20260131", "110000-120000", 0),
        ("20260130-", "235900-", 1), ("-20260201", "-000100", 1), ("", "100000-110000", 1), ("", "235900-000100", 0),
    ):
        found = server.find("/studies", PatientID=f"{MARK}A", StudyDate=date, StudyTime=time)
        equal((date, time, len(found)), (date, time, count))


@rule("8.3.4.1.1", "the time zone of a query is heeded, or that it is not is said in a Warning")
def _(server):
    answer = status(server.get("/studies", JSON, PatientID=f"{MARK}A", StudyDate="20260131", TimezoneOffsetFromUTC="+0000"), 200)
    assert "TimezoneOffsetFromUTC" in answer.headers.get("Warning", "") or answer.json()[0].get("00080201"), "nothing is said"


@rule("8.3.4.3", "includefield takes tags, lists, and attributes within sequences")
def _(server):
    for field in ("00400275", "RequestAttributesSequence", "00200052,00400275", "RequestAttributesSequence.RequestedProcedureID",
                  "00400275.00401001"):
        found = server.find(f"{S}/series", includefield=field)[0]
        equal(found["00400275"]["Value"][0]["00401001"]["Value"], ["PROC9"])


@rule("8.3.4.4", "no match is 204 without a body, or an empty list")
def _(server):
    answer = server.get("/studies", JSON, PatientID="nobody at all")
    assert (answer.status_code, answer.content) == (204, b"") or answer.json() == [], answer.status_code


@rule("8.3.4.2", "fuzzy matching is done, or its absence is said in a Warning")
def _(server):
    answer = status(server.get("/studies", JSON, PatientName="Probe^Anna", PatientID=f"{MARK}A", fuzzymatching="true"), 200)
    warning = answer.headers.get("Warning", "")
    fuzzy = server.get("/studies", JSON, PatientName="Anna", PatientID=f"{MARK}A", fuzzymatching="true")
    assert fuzzy.status_code == 200 and fuzzy.json() or "fuzzymatching" in warning, "neither matched nor said"


@rule("8.3.4.2", "the Warning of literal matching comes at every level, with and without results")
def _(server):
    for path in ("/studies", "/series", "/instances", f"{S}/series", f"{S}/instances", f"{E}/instances", "/workitems"):
        for name in ("Probe*", "nobody at all"):
            answer = status(server.get(path, JSON, PatientName=name, fuzzymatching="true"), 200, 204)
            said = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
            assert said in answer.headers.get("Warning", "") or "Probe" in answer.text, f"{path}, {name}: nothing is said"
        plain = status(server.get(path, JSON, PatientName="Probe*", fuzzymatching="false"), 200, 204)
        assert "fuzzymatching" not in plain.headers.get("Warning", ""), path


@rule("8.3.4.1", "400 for a value that is none")
def _(server):
    status(server.get("/studies", JSON, StudyDate="yesterday"), 400)
    status(server.get("/studies", JSON, limit="-1"), 400)


@rule("10.6.4", "searches are answered in XML, one part a result")
def _(server):
    answer = status(server.get(f"{E}/instances", 'multipart/related; type="application/dicom+xml"'), 200)
    equal(len(parts_of(answer)), 2)
    for part, body in parts_of(answer):
        equal(part.get_content_type(), "application/dicom+xml")
        keys = {node.get("keyword") for node in ET.fromstring(body).iter(f"{XML}DicomAttribute")}
        assert "SOPInstanceUID" in keys


@rule("10.6.4", "406 for a type that is not written")
def _(server):
    status(server.get("/studies", "image/png"), 406)


# ---- WADO-RS


@rule("10.4.1.1.1", "studies, series and instances come back as multipart/related of application/dicom")
def _(server):
    for path, count in ((S, 5), (E, 2), (I, 1)):
        parts = parts_of(status(server.get(path, 'multipart/related; type="application/dicom"; transfer-syntax=*'), 200))
        equal((path, len(parts)), (path, count))
        for part, body in parts:
            equal(part.get_content_type(), "application/dicom")
            pydicom.dcmread(io.BytesIO(body))


@rule("10.4.4", "a single instance comes alone as application/dicom, several do not")
def _(server):
    answer = status(server.get(I, "application/dicom"), 200)
    equal(pydicom.dcmread(io.BytesIO(answer.content)).PixelData, PIXELS)
    status(server.get(S, "application/dicom"), 406)


@rule("8.7.3.5.2", "transfer-syntax=* gives what is stored, quoted or not")
def _(server):
    for star in ("*", '"*"'):
        answer = status(server.get(P, f'multipart/related; type="application/dicom"; transfer-syntax={star}'), 200)
        found = pydicom.dcmread(io.BytesIO(parts_of(answer)[0][1]))
        equal(found.file_meta.TransferSyntaxUID, RLELossless)


@rule("8.7.3.4", "without a transfer syntax Explicit VR Little Endian is sent")
def _(server):
    answer = status(server.get(P, 'multipart/related; type="application/dicom"'), 200)
    found = pydicom.dcmread(io.BytesIO(parts_of(answer)[0][1]))
    equal((found.file_meta.TransferSyntaxUID, found.PixelData), (ExplicitVRLittleEndian, PIXELS))


@rule("8.7.8.1", "406 for a transfer syntax that cannot be made")
def _(server):
    status(server.get(I, 'application/dicom; transfer-syntax="1.2.840.10008.1.2.4.100"'), 406)


@rule("8.7.3.1", "quality values are followed")
def _(server):
    answer = status(server.get(I, 'multipart/related; type="application/dicom";q=0.1, application/dicom;q=0.9'), 200)
    equal(answer.headers["Content-Type"].split(";")[0], "application/dicom")


@rule("10.4.1.1.2", "metadata has every attribute, no group 0002, and links its bulk data")
def _(server):
    for path, count in ((S, 5), (E, 2), (I, 1)):
        found = status(server.get(f"{path}/metadata", JSON), 200).json()
        equal((path, len(found)), (path, count))
    dataset = next(item for item in found if item["00080018"]["Value"] == [IMAGES[0].SOPInstanceUID])
    assert not any(key.startswith("0002") for key in dataset)
    equal(dataset["00180050"]["Value"], [5])
    pixels = dataset.get("7FE00010", {})
    assert "InlineBinary" not in pixels
    if uri := pixels.get("BulkDataURI"):
        uri = uri if uri.startswith("http") else f"{server.base}{uri}"
        answer = server.session.get(uri, headers={"Accept": f'multipart/related; type="{OCTETS}"'}, timeout=60)
        equal(parts_of(status(answer, 200))[0][1], PIXELS)
    else:
        raise AssertionError("the pixels have no BulkDataURI")


@rule("F.2.2", "person names keep their groups in JSON")
def _(server):
    found = server.find("/studies", StudyInstanceUID=OTHER)[0]
    equal(found["00100010"]["Value"][0], {"Alphabetic": "Probe^Berta", "Ideographic": "プローブ"})


@rule("10.4.1.1.2", "metadata comes in XML")
def _(server):
    answer = status(server.get(f"{I}/metadata", 'multipart/related; type="application/dicom+xml"'), 200)
    part, body = parts_of(answer)[0]
    names = {node.get("tag"): node for node in ET.fromstring(body).iter(f"{XML}DicomAttribute")}
    equal(names["00280010"].find(f"{XML}Value").text, "8")
    equal(names["00100010"].find(f".//{XML}FamilyName").text, "Probe")


@rule("10.4.1.1.5", "frames come one a part, in the order asked")
def _(server):
    for path in (I, P):
        for star in ("", "; transfer-syntax=*", '; transfer-syntax="*"'):
            answer = status(server.get(f"{path}/frames/1", f'multipart/related; type="{OCTETS}"{star}'), 200)
            part, body = parts_of(answer)[0]
            if "RLE" not in str(part["Content-Type"]) and "1.2.5" not in str(part["Content-Type"]):
                equal(body, PIXELS)


@rule("10.4.1.1.5", "a frame comes alone as application/octet-stream")
def _(server):
    equal(status(server.get(f"{I}/frames/1", OCTETS), 200).content, PIXELS)


@rule("10.4.1.1.5", "404 for a frame that is not there, 400 for one that is none")
def _(server):
    status(server.get(f"{I}/frames/2", f'multipart/related; type="{OCTETS}"'), 404)
    status(server.get(f"{I}/frames/0", f'multipart/related; type="{OCTETS}"'), 400, 404)
    status(server.get(f"{I}/frames/x", f'multipart/related; type="{OCTETS}"'), 400)


@rule("10.4.1.1.3", "an instance is rendered as image/jpeg by default, and as PNG")
def _(server):
    for accept, magic in ((None, b"\xff\xd8"), ("image/jpeg", b"\xff\xd8"), ("image/png", b"\x89PNG"), ("image/gif", b"GIF8")):
        answer = status(server.get(f"{I}/rendered", accept), 200)
        assert answer.content.startswith(magic), (accept, answer.headers["Content-Type"])


@rule("10.4.1.1.3", "a series and frames are rendered")
def _(server):
    answer = status(server.get(f"{E}/rendered", 'multipart/related; type="image/jpeg"'), 200)
    equal(len(parts_of(answer)), 2)
    status(server.get(f"{I}/frames/1/rendered", "image/jpeg"), 200)


def png_size(content):
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


@rule("8.3.5.1.3", "viewport scales, window is checked")
def _(server):
    answer = status(server.get(f"{I}/rendered", "image/png", viewport="4,4"), 200)
    equal(png_size(answer.content), (4, 4))
    for part, size in ((",,4,2", (8, 4)), ("2,4,,", (8, 5)), (",,,", (8, 8)), ("4,0,4,", (4, 8))):
        found = png_size(status(server.get(f"{I}/rendered", "image/png", viewport=f"8,8,{part}"), 200).content)
        equal((part, found), (part, size))
    status(server.get(f"{I}/rendered", "image/png", window="40,80,linear"), 200)
    status(server.get(f"{I}/rendered", "image/png", window="40"), 400)


@rule("8.3.5.1.2", "quality is checked")
def _(server):
    status(server.get(f"{I}/rendered", "image/jpeg", quality="50"), 200)
    status(server.get(f"{I}/rendered", "image/jpeg", quality="1000"), 400)


@rule("8.3.5.1.1", "annotations are burnt in or a Warning names those that are not; what is none is 400")
def _(server):
    answer = status(server.get(f"{I}/rendered", "image/png", annotation="patient,technique"), 200)
    plain = status(server.get(f"{I}/rendered", "image/png"), 200)
    said = "The following annotation values are not supported: patient,technique"
    assert said in answer.headers.get("Warning", "") or answer.content != plain.content, "neither burnt in nor said"
    for value in ("", "everything"):
        status(server.session.get(f"{server.base}{I}/rendered?annotation={value}", headers={"Accept": "image/png"}, timeout=60), 400)


@rule("8.3.5.1.3", "the viewport of a thumbnail is its size and nothing else")
def _(server):
    answer = status(server.get(f"{I}/thumbnail", "image/png", viewport="4,4"), 200)
    equal(png_size(answer.content), (4, 4))
    status(server.get(f"{I}/thumbnail", "image/png", viewport="4,4,0,0,2,2"), 400)


@rule("10.4.1.1.4", "thumbnails of study, series, instance and frame")
def _(server):
    for path in (S, E, I, f"{I}/frames/1"):
        answer = status(server.get(f"{path}/thumbnail", "image/jpeg"), 200)
        assert answer.content.startswith(b"\xff\xd8"), path


@rule("10.4.1.1.6", "bulk data and pixel data of study, series and instance")
def _(server):
    for path, count in ((S, 5), (E, 2), (I, 1)):
        for what in ("bulkdata", "pixeldata"):
            answer = status(server.get(f"{path}/{what}", f'multipart/related; type="{OCTETS}"'), 200)
            equal((path, what, len(parts_of(answer))), (path, what, count))


@rule("10.4.3", "404 for what is not stored, 400 for a UID that is none")
def _(server):
    for path in ("/studies/1.2.3", "/studies/1.2.3/metadata", f"{S}/series/1.2.3", f"{E}/instances/1.2.3/frames/1"):
        status(server.get(path), 404)
    status(server.get("/studies/no-uid/metadata"), 400, 404)


@rule("8.3.3.1", "the accept parameter outranks the header")
def _(server):
    answer = status(server.get(f"{I}/rendered?accept=image/png", "image/jpeg"), 200)
    assert answer.content.startswith(b"\x89PNG")


@rule("8.7.8.1", "where nothing of the accept parameter can be sent, the header counts")
def _(server):
    answer = status(server.get(f"{I}?accept=text/html", "application/dicom"), 200)
    equal(answer.headers["Content-Type"].split(";")[0], "application/dicom")
    status(server.get(f"{I}?accept=text/html", "image/png"), 406)


@rule("RFC 9110 12.4.2", "a type of quality 0 is not sent")
def _(server):
    status(server.get(I, "application/dicom;q=0"), 406)


@rule("Table 8.4.2-1", "what is retrieved says where it is")
def _(server):
    for path, accept in ((I, "application/dicom"), (f"{I}/metadata", JSON), (f"{E}/metadata", JSON), (f"{I}/rendered", "image/png"),
                         (f"{I}/frames/1", OCTETS), (f"{S}/thumbnail", "image/jpeg")):
        answer = status(server.get(path, accept), 200)
        found = answer.headers.get("Content-Location", "")
        assert found.endswith(path), f"{path}: Content-Location {found!r}"


@rule("C.2.2.2.1.1 of PS3.4", "a person is found by every group of the name")
def _(server):
    for name in ("Probe^Berta", "Probe^Berta=プローブ", "=プローブ", "プローブ", "probe^berta=プ*", "プ*"):
        equal((name, values(server.find("/studies", PatientID=f"{MARK}B", PatientName=name), "0020000D")), (name, [OTHER]))
    for name in ("Probe^Anna=プローブ", "Probe^Berta=プローブ^ア", "=Probe^Anna"):
        equal((name, server.find("/studies", PatientID=f"{MARK}B", PatientName=name)), (name, []))


@rule("8.7.3.2", "DICOM JSON is also called application/json, and */* means it")
def _(server):
    for accept in ("application/json", "*/*", None):
        status(server.get(f"{E}/instances", accept), 200).json()


# ---- WADO-URI, capabilities, HTTP


@rule("9.4", "WADO-URI gives the object and a picture")
def _(server):
    uri = {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": IMAGES[0].SOPInstanceUID}
    for path in ("/wado", "/../wado"):
        answer = server.get(path, None, contentType="application/dicom", **uri)
        if answer.status_code == 200:
            break
    equal(pydicom.dcmread(io.BytesIO(status(answer, 200).content)).PixelData, PIXELS)
    picture = status(server.get(path, None, **uri), 200)
    equal(picture.headers["Content-Type"].split(";")[0], "image/jpeg")


@rule("8.9", "OPTIONS describes the services")
def _(server):
    answer = status(server.session.options(f"{server.base}/", timeout=60), 200)
    assert answer.content, "the description is empty"


@rule("RFC 9110 9.3.2", "HEAD answers as GET without a body")
def _(server):
    answer = server.session.head(f"{server.base}/studies", params={"PatientID": f"{MARK}A"}, timeout=60)
    status(answer, 200)
    equal(answer.content, b"")


@rule("RFC 9110 13.1.2", "what a client has already is not sent again")
def _(server):
    answer = status(server.get(I, "application/dicom"), 200)
    tag = answer.headers.get("ETag")
    assert tag, "no ETag"
    status(server.get(I, "application/dicom", {"If-None-Match": tag}), 304)


@rule("8.5", "405 for a method that a resource has not")
def _(server):
    answer = server.session.put(f"{server.base}/studies", timeout=60)
    status(answer, 405)


dicomweb_worklist.add(rule, status, equal, IMAGES)


def main(base, report, origin):
    server = Server(base)
    if origin:
        dicomweb_worklist.add_sharing(rule, status, equal, origin, f"{E}/instances")
    lines = []
    for section, text, check in rules:
        try:
            check(server)
            said = ""
        except Exception as error:  # A server may answer anything at all.
            said = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error))[:160] or "failed"
        lines.append((section, text, said))
        print(f"{'FAIL' if said else 'pass'}  {section:18} {text}" + (f"\n      {said}" if said else ""))
    broken = sum(bool(said) for *_, said in lines)
    print(f"{len(lines) - broken} of {len(lines)} rules kept")
    if report:
        with open(report, "w") as out:
            json.dump(lines, out)
    return 1 if broken else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    report, origin = (arguments[arguments.index(name) + 1] if name in arguments else None for name in ("--report", "--origin"))
    sys.exit(main(arguments[0], report, origin))
