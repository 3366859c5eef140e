"""A round trip between ictus and Debian's Orthanc, over DIMSE and DICOMweb and in both directions.

usage: unshare -n python3 orthanc.py ICTUS_BINARY [--orthanc ROOT] [--analyse SECONDS]

Run it in a network namespace of its own: Debian's Orthanc listens on every address, whatever it is told.
ROOT is where the packages orthanc and orthanc-dicomweb are unpacked, `/` when they are installed.
Prints a line a check and exits 1 when one fails. With --analyse ictus analyses a synthetic head, too, and its results
must arrive at Orthanc within so many seconds.
"""

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import pydicom
import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ICTUS, ORTHANC = "http://127.0.0.1:8080/dicom-web", "http://127.0.0.1:8042"
PATIENT = "P" + generate_uid()[-8:]
checks = []


def check(text):
    def keep(function):
        checks.append((text, function))
        return function

    return keep


def ct(study, series, number, date="20260131", patient=PATIENT, name="Round^Trip=往復"):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]  # nothing for a network to look at
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.Modality = date, "101500", "A1", "CT"
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = name, patient, "19500102", "O"
    image.StudyDescription, image.SeriesDescription, image.BodyPartExamined = "Head", "5 mm", "HEAD"
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.StudyID, image.SeriesNumber, image.InstanceNumber = "1", 2, number
    image.FrameOfReferenceUID = study
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 5 * number], [1, 0, 0, 0, 1, 0]
    image.SliceThickness, image.PixelSpacing = 5, [1, 1]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = 16
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleIntercept, image.RescaleSlope, image.WindowCenter, image.WindowWidth = -1024, 1, 40, 80
    image.PixelData = (numpy.arange(256, dtype="<u2") + number).tobytes()
    return image


def written(image):
    out = io.BytesIO()
    image.save_as(out, enforce_file_format=True)
    return out.getvalue()


class Neighbours:
    """Both servers, and what was sent to which."""

    def __init__(self, folder):
        self.processes, self.folder = [], folder

    def begin(self, binary, root, analyse):
        folder = self.folder
        (folder / "orthanc").mkdir()
        settings = {
            "Name": "neighbour", "StorageDirectory": f"{folder}/orthanc", "IndexDirectory": f"{folder}/orthanc",
            "HttpPort": 8042, "DicomPort": 4242, "DicomAet": "ORTHANC", "AuthenticationEnabled": False,
            "DicomModalities": {"ictus": ["ICTUS", "127.0.0.1", 11112]},
            "DicomWeb": {"Enable": True, "Servers": {"ictus": {"Url": ICTUS, "HasDelete": False}}},
            "Plugins": [f"{root}/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        results = ["seg", "pm", "sr", "sc"]
        targets = {
            "targets": [
                {"name": "orthanc-dimse", "kind": "cstore", "host": "127.0.0.1", "port": 4242, "called": "ORTHANC",
                 "calling": "ICTUS", "results": ["sc", "sr"]},
                {"name": "orthanc-web", "kind": "stow", "url": f"{ORTHANC}/dicom-web", "results": results},
            ],
            "peers": [{"title": "ORTHANC", "host": "127.0.0.1", "port": 4242}],
            "fetch": [
                {"name": "by-dimse", "what": "priors", "from": "ORTHANC", "how": "get", "when_modality": "CT",
                 "modality": "CT", "within_days": 3650, "most": 1},
                {"name": "by-web", "what": "priors", "url": f"{ORTHANC}/dicom-web", "when_modality": "CT",
                 "modality": "CT", "within_days": 3650, "most": 2},
            ],
        }
        (folder / "targets.json").write_text(json.dumps(targets))
        libraries = {**os.environ, "LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu"}
        self.start([f"{root}/usr/sbin/Orthanc", f"{folder}/orthanc.json"], f"{ORTHANC}/system", libraries)
        ictus = [binary, "serve", "--data", f"{folder}/ictus", "--dimse", "127.0.0.1:11112", "--dimse-allow", "ORTHANC",
                 "--deliver", f"{folder}/targets.json", "--quiet", "2"]
        self.start(ictus if analyse else [*ictus, "--no-worker"], f"{ICTUS}/studies?limit=1", dict(os.environ))

    def start(self, command, url, environment):
        log = open(self.folder / f"{Path(command[0]).name}.log", "w")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.processes.append(process)
        for _ in range(240):
            try:
                requests.get(url, timeout=5)
                return
            except (requests.ConnectionError, requests.Timeout):
                assert process.poll() is None, Path(log.name).read_text()[-2000:]
                time.sleep(0.5)
        raise AssertionError(f"{command[0]} did not start: {Path(log.name).read_text()[-2000:]}")

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def orthanc(self, method, path, body=None, timeout=120):
        answer = requests.request(method, ORTHANC + path, timeout=timeout, **(
            {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}))
        assert answer.ok, f"Orthanc answered {answer.status_code}: {answer.text[:200]}"
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer

    def to_orthanc(self, *images):
        return [self.orthanc("POST", "/instances", written(image))["ID"] for image in images]

    def to_ictus(self, *images):
        body = b"".join(b"--part\r\nContent-Type: application/dicom\r\n\r\n" + written(image) + b"\r\n" for image in images)
        kind = 'multipart/related; type="application/dicom"; boundary=part'
        answer = requests.post(f"{ICTUS}/studies", data=body + b"--part--\r\n", headers={"Content-Type": kind}, timeout=60)
        assert answer.status_code == 200, answer.text

    def in_ictus(self, image):
        """Whether ictus has an instance with the same pixels and name."""
        path = f"{ICTUS}/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}/instances/{image.SOPInstanceUID}"
        answer = requests.get(path, headers={"Accept": "application/dicom"}, timeout=60)
        if answer.status_code == 404:
            return False
        found = pydicom.dcmread(io.BytesIO(answer.content))
        assert (found.PixelData, str(found.PatientName)) == (image.PixelData, str(image.PatientName))
        return True

    def in_orthanc(self, image):
        found = self.orthanc("POST", "/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": image.SOPInstanceUID}})
        if not found:
            return False
        there = pydicom.dcmread(io.BytesIO(self.orthanc("GET", f"/instances/{found[0]}/file").content))
        assert (there.PixelData, str(there.PatientName)) == (image.PixelData, str(image.PatientName))
        return True


def until(what, look, seconds=60):
    for _ in range(seconds * 2):
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


def series(count=3, **attributes):
    study, uid = generate_uid(), generate_uid()
    return [ct(study, uid, number + 1, **attributes) for number in range(count)]


@check("Orthanc echoes ictus (C-ECHO)")
def _(both):
    both.orthanc("POST", "/modalities/ictus/echo", {})


@check("Orthanc stores into ictus by C-STORE")
def _(both):
    images = series()
    both.orthanc("POST", "/modalities/ictus/store", {"Resources": both.to_orthanc(*images)})
    assert all(both.in_ictus(image) for image in images)


@check("Orthanc stores into ictus by STOW-RS")
def _(both):
    images = series()
    both.orthanc("POST", "/dicom-web/servers/ictus/stow", {"Resources": both.to_orthanc(*images)})
    assert all(both.in_ictus(image) for image in images)


@check("Orthanc asks ictus for storage commitment (N-ACTION, N-EVENT-REPORT)")
def _(both):
    images = series()
    both.orthanc("POST", "/modalities/ictus/store", {"Resources": both.to_orthanc(*images)})
    asked = [[CTImageStorage, image.SOPInstanceUID] for image in images]
    answer = both.orthanc("POST", "/modalities/ictus/storage-commitment", {"DicomInstances": asked})
    report = until("a report", lambda: (r := both.orthanc("GET", answer["Path"]))["Status"] != "Pending" and r)
    assert (report["Status"], len(report["Success"])) == ("Success", 3), report


@check("Orthanc finds in ictus and retrieves by C-FIND and C-MOVE")
def _(both):
    images = series()
    both.to_ictus(*images)
    query = {"Level": "Study", "Query": {"StudyInstanceUID": images[0].StudyInstanceUID, "PatientName": ""}}
    found = both.orthanc("POST", "/modalities/ictus/query", query)
    answers = both.orthanc("GET", f"{found['Path']}/answers?expand&simplify")
    assert answers[0]["PatientName"].startswith("Round^Trip"), answers
    both.orthanc("POST", f"{found['Path']}/answers/0/retrieve", b"ORTHANC")
    until("the images at Orthanc", lambda: all(both.in_orthanc(image) for image in images))


@check("Orthanc finds in ictus and retrieves by QIDO-RS and WADO-RS")
def _(both):
    images = series()
    both.to_ictus(*images)
    found = both.orthanc("POST", "/dicom-web/servers/ictus/qido",
                         {"Uri": "/studies", "Arguments": {"StudyInstanceUID": images[0].StudyInstanceUID}})
    assert len(found) == 1, found
    both.orthanc("POST", "/dicom-web/servers/ictus/retrieve", {"Resources": [{"Study": images[0].StudyInstanceUID}]})
    assert all(both.in_orthanc(image) for image in images)


@check("ictus fetches priors from Orthanc by C-FIND and C-GET, and by QIDO-RS and WADO-RS")
def _(both):
    patient = "F" + generate_uid()[-8:]
    older = series(date="20240131", patient=patient)
    newer = series(date="20250131", patient=patient)
    both.to_orthanc(*older, *newer)
    both.to_ictus(*series(date="20260131", patient=patient))
    # By DIMSE the latest one, by DICOMweb both.
    until("the priors at ictus", lambda: all(both.in_ictus(image) for image in older + newer), 120)


@check("what both have is the same, whoever is asked")
def _(both):
    images = series()
    both.to_ictus(*images)
    both.to_orthanc(*images)
    uid = images[0].StudyInstanceUID
    answers = [requests.get(f"{base}/studies/{uid}/instances", headers={"Accept": "application/dicom+json"}, timeout=60).json()
               for base in (ICTUS, f"{ORTHANC}/dicom-web")]
    ours, theirs = ({item["00080018"]["Value"][0] for item in answer} for answer in answers)
    assert ours == theirs == {image.SOPInstanceUID for image in images}


def delivered(both, binary, seconds):
    """Results of an analysis at Orthanc, by both ways."""
    head = both.folder / "phantom"
    made = subprocess.run([binary, "phantom", "--out", head, "--seed", "3", "--kind", "haemorrhage"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    images = [pydicom.dcmread(path) for path in sorted(head.rglob("*.dcm"))]
    both.to_ictus(*images)
    uid = images[0].StudyInstanceUID

    def found():
        query = {"Level": "Series", "Query": {"StudyInstanceUID": uid}, "Expand": True}
        modalities = {one["MainDicomTags"].get("Modality") for one in both.orthanc("POST", "/tools/find", query)}
        return {"SEG", "SR"} <= modalities and modalities

    print("      at Orthanc:", ", ".join(sorted(until("the results at Orthanc", found, seconds))))
    listed = requests.get("http://127.0.0.1:8080/api/deliveries", params={"study": uid}, timeout=60).json()
    done = until("both deliveries", lambda: all(one["state"] == "delivered" for one in requests.get(
        "http://127.0.0.1:8080/api/deliveries", params={"study": uid}, timeout=60).json()), 60)
    assert done and {one["target"] for one in listed} == {"orthanc-dimse", "orthanc-web"}, listed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--orthanc", default="")
    parser.add_argument("--analyse", type=int, default=0)
    arguments = parser.parse_args()
    if len(socket.if_nameindex()) > 1:
        sys.exit("this is no network namespace of its own: run it under `unshare -n`")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    binary = str(Path(arguments.binary).resolve())
    if arguments.analyse:
        checks.append(("ictus delivers its results to Orthanc by C-STORE and STOW-RS",
                       lambda both: delivered(both, binary, arguments.analyse)))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        both = Neighbours(Path(folder))
        try:
            both.begin(binary, arguments.orthanc.rstrip("/"), arguments.analyse)
            print("Orthanc", both.orthanc("GET", "/system")["Version"])
            for text, function in checks:
                try:
                    function(both)
                    print(f"pass  {text}", flush=True)
                except Exception as error:  # A neighbour may answer anything at all.
                    failed += 1
                    print(f"FAIL  {text}\n      {type(error).__name__}: {str(error)[:300]}", flush=True)
                    for log in sorted(Path(folder).glob("*.log")):
                        print("".join(f"      {log.stem}: {line}\n" for line in log.read_text().splitlines()[-4:]), end="")
        finally:
            both.end()
    print(f"{len(checks) - failed} of {len(checks)} hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
