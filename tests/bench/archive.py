"""Times ictus beside Debian's Orthanc with its DICOMweb plug-in, both in this run, turn by turn.

usage: unshare -n python3 archive.py ICTUS_BINARY [--studies 10,100,1000] [--pairs 20] [--only stow,frames,...]

Run it in a network namespace of its own: Debian's Orthanc listens on every address.
Both write durably: ictus always, Orthanc with SyncStorageArea. Prints medians, ratios with 95 % intervals (bootstrap of
the pairs), CPU time per instance and peak memory, each with the processes that belong to the server (Postgres too).
"""

import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SLICES = 280
TICK = os.sysconf("SC_CLK_TCK")


def ct(study, series, number, pixels, side, patient):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]  # nothing for a network to look at
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.Modality = "20260131", "101500", "A1", "CT"
    image.PatientName, image.PatientID, image.PatientSex = f"Bench^{patient}", patient, "O"
    image.StudyDescription, image.SeriesDescription = "Head", "Thin"
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.StudyID, image.SeriesNumber, image.InstanceNumber = "1", 2, number
    image.FrameOfReferenceUID = study
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    image.SliceThickness, image.PixelSpacing = 1, [0.5, 0.5]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows = image.Columns = side
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleIntercept, image.RescaleSlope, image.WindowCenter, image.WindowWidth = -1024, 1, 40, 80
    image.PixelData = pixels
    return image


def written(image, folder):
    path = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path.read_bytes(), path


def thin_study(folder, patient):
    """A study of 280 slices of 512 x 512: a smooth head with noise, as hard to compress as a real one."""
    generator = numpy.random.default_rng(7)
    y, x = numpy.mgrid[-1:1:512j, -1:1:512j]
    head = numpy.where(x * x + y * y < 0.6, 1064, 24)
    study, series = generate_uid(), generate_uid()
    files = []
    for number in range(SLICES):
        pixels = (head + generator.normal(0, 8, head.shape)).clip(0, 4095).astype("<u2").tobytes()
        files.append(written(ct(study, series, number + 1, pixels, 512, patient), folder))
    return study, series, files


class Server:
    """A server process with those that it starts."""

    def __init__(self, name, command, port, base, environment=None):
        self.name, self.port, self.base = name, port, base
        log = open(f"/tmp/bench-{name}.log", "w")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        for _ in range(240):
            try:
                self.get("/studies?limit=1")
                return
            except OSError:
                time.sleep(0.5)
        sys.exit(f"{name} did not start, see {log.name}")

    def tree(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except FileNotFoundError:
                pass
        return set(found)

    def cpu_s(self):
        total = 0
        for pid in self.tree():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += sum(map(int, fields[11:15]))  # with children that ended
            except FileNotFoundError:
                pass
        return total / TICK

    def memory_mb(self):
        """Proportional set size, so that shared memory counts once."""
        total = 0
        for pid in self.tree():
            try:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return total / 1024

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def get(self, path, headers=None, connection=None):
        own = connection or self.connect()
        own.request("GET", self.base + path, headers=headers or {"Accept": "application/dicom+json"})
        answer = own.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            raise SystemExit(f"{self.name} answered {answer.status} to {path}: {body[:300]}")
        if not connection:
            own.close()
        return body

    def stow(self, files, connection=None):
        boundary = "bench-boundary"
        body = b"".join(b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), data) for data, _ in files)
        body += b"--%s--\r\n" % boundary.encode()
        own = connection or self.connect()
        own.request("POST", self.base + "/studies", body, {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json"})
        answer = own.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{self.name} answered {answer.status} to a store: {said[:300]}")
        if not connection:
            own.close()

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Peak(threading.Thread):
    """The most memory that a server has while this runs."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.most, self.done = server, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.1):
            self.most = max(self.most, self.server.memory_mb())

    def end(self):
        self.done.set()
        self.join()
        return self.most


def interval(ours, theirs, tries=2000):
    """Median of the pairs' ratios, theirs over ours, with its 95 % interval."""
    ratios = [b / a for a, b in zip(ours, theirs)]
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(tries))
    return statistics.median(ratios), medians[tries // 40], medians[-tries // 40]


def tell(what, unit, ours, theirs):
    middle, low, high = interval(ours, theirs)
    print(f"{what:44} ictus {statistics.median(ours):10.3f} {unit}   orthanc {statistics.median(theirs):10.3f} {unit}"
          f"   {middle:6.1f} x [{low:.1f}, {high:.1f}]   n = {len(ours)}", flush=True)


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_turn(servers, pairs, work):
    """Seconds of `work(server)` for both, first one and then the other first."""
    times = {server.name: [] for server in servers}
    for pair in range(pairs):
        for server in servers if pair % 2 == 0 else reversed(servers):
            times[server.name].append(timed(lambda: work(server)))
    return times["ictus"], times["orthanc"]


def bench_stow(servers, folder, pairs):
    for clients in (1, 4):
        rates, cpu = {s.name: [] for s in servers}, {s.name: [] for s in servers}
        peaks = {s.name: 0.0 for s in servers}
        for pair in range(max(3, pairs // 5)):
            for server in servers if pair % 2 == 0 else reversed(servers):
                shutil.rmtree(folder / "send", ignore_errors=True)
                (folder / "send").mkdir()
                _, _, files = thin_study(folder / "send", f"S{clients}{pair}")
                groups = [files[k::clients] for k in range(clients)]

                def client(group):
                    connection = server.connect()
                    for begin in range(0, len(group), 10):
                        server.stow(group[begin : begin + 10], connection)

                before, watch = server.cpu_s(), Peak(server)
                threads = [threading.Thread(target=client, args=(group,)) for group in groups]
                begin = time.perf_counter()
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                rates[server.name].append((time.perf_counter() - begin) / SLICES * 1000)
                peaks[server.name] = max(peaks[server.name], watch.end())
                cpu[server.name].append((server.cpu_s() - before) / SLICES * 1000)
        tell(f"STOW, {clients} client(s), 10 a request", "ms/inst", rates["ictus"], rates["orthanc"])
        tell("  CPU an instance", "ms", cpu["ictus"], cpu["orthanc"])
        print(f"  peak memory                                  ictus {peaks['ictus']:10.0f} MB        orthanc {peaks['orthanc']:10.0f} MB"
              f"        {peaks['orthanc'] / peaks['ictus']:.1f} x", flush=True)


def bench_retrieval(servers, folder, pairs):
    study, series, files = thin_study(folder, "R1")
    for server in servers:
        for begin in range(0, len(files), 10):
            server.stow(files[begin : begin + 10])
    sops = [path.stem for _, path in files]
    connections = {server.name: server.connect() for server in servers}
    for encoding in ("identity", "gzip, deflate, br, zstd"):
        headers = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*', "Accept-Encoding": encoding}
        count = 40

        def frames(server, offset=[0]):
            offset[0] += 1
            for k in range(count):
                sop = sops[(offset[0] * count + k) % len(sops)]
                path = f"/studies/{study}/series/{series}/instances/{sop}/frames/1"
                server.get(path, headers, connections[server.name])

        ours, theirs = ([one / count * 1000 for one in times] for times in in_turn(servers, pairs, frames))
        tell(f"frame, Accept-Encoding: {encoding.split(',')[0]}", "ms", ours, theirs)
    ours, theirs = in_turn(servers, pairs, lambda s: s.get(f"/studies/{study}/series/{series}/metadata"))
    tell("metadata of a series of 280", "s", ours, theirs)
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    ours, theirs = in_turn(servers, max(5, pairs // 4), lambda s: s.get(f"/studies/{study}", headers))
    tell("whole study of 280", "s", ours, theirs)


def bench_search(servers, folder, pairs, sizes):
    stored = 0
    pixels = bytes(2 * 16 * 16)
    for size in sizes:
        while stored < size:
            study, series = generate_uid(), generate_uid()
            files = [written(ct(study, series, k, pixels, 16, f"Q{stored}"), folder) for k in (1, 2)]
            for server in servers:
                server.stow(files)
            stored += 1
        for what, path in (
            ("studies, first 25", "/studies?limit=25&includefield=00081030"),
            ("one PatientID", f"/studies?PatientID=Q{size // 2}"),
            ("PatientName with a wildcard", f"/studies?PatientName=Bench%5EQ{size // 2}*&limit=25"),
        ):
            ours, theirs = in_turn(servers, pairs, lambda s: s.get(path))
            tell(f"search among {size}: {what}", "ms", [1000 * t for t in ours], [1000 * t for t in theirs])


def bench_c_store(servers, folder, pairs, ports):
    rates = {server.name: [] for server in servers}
    for pair in range(max(3, pairs // 5)):
        for server in servers if pair % 2 == 0 else reversed(servers):
            shutil.rmtree(folder / "send", ignore_errors=True)
            (folder / "send").mkdir()
            thin_study(folder / "send", f"C{pair}")
            port, aet = ports[server.name]
            command = ["storescu", "-R", "-xe", "+sd", "-aec", aet, "127.0.0.1", str(port), str(folder / "send")]
            rates[server.name].append(timed(lambda: subprocess.run(command, check=True)) / SLICES * 1000)
    tell("C-STORE (dcmtk storescu), 1 client", "ms/inst", rates["ictus"], rates["orthanc"])


def main():
    arguments = sys.argv[1:]
    option = lambda name, default: arguments[arguments.index(name) + 1] if name in arguments else default
    pairs = int(option("--pairs", "20"))
    sizes = [int(size) for size in option("--studies", "10,100,1000").split(",")]
    only = option("--only", "stow,cstore,retrieval,search").split(",")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="ictus-bench.", dir="/tmp") as name:
        os.chmod(name, 0o711)
        folder = Path(name)
        (folder / "orthanc").mkdir()
        (folder / "send").mkdir()
        settings = {"StorageDirectory": f"{name}/orthanc", "IndexDirectory": f"{name}/orthanc", "HttpPort": 8042, "DicomPort": 4242,
                    "RemoteAccessAllowed": True, "AuthenticationEnabled": False, "DicomCheckCalledAet": False,
                    "SyncStorageArea": True, "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
                    "DicomAlwaysAllowStore": True, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
        (folder / "orthanc.json").write_text(json.dumps(settings))
        environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
        ictus = Server("ictus", [arguments[0], "serve", "--data", f"{name}/ictus", "--listen", "127.0.0.1:8080",
                                 "--dimse", "127.0.0.1:11112", "--no-worker"], 8080, "/dicom-web", environment)
        orthanc = Server("orthanc", ["Orthanc", f"{name}/orthanc.json"], 8042, "/dicom-web")
        servers = [ictus, orthanc]
        version = subprocess.run(["dpkg-query", "-W", "orthanc", "orthanc-dicomweb"], capture_output=True, text=True).stdout
        print(" ".join(version.split()), f"· {os.cpu_count()} cores", flush=True)
        try:
            if "search" in only:
                bench_search(servers, folder, pairs, sizes)
            if "stow" in only:
                bench_stow(servers, folder, pairs)
            if "cstore" in only:
                bench_c_store(servers, folder, pairs, {"ictus": (11112, "ICTUS"), "orthanc": (4242, "ORTHANC")})
            if "retrieval" in only:
                bench_retrieval(servers, folder, pairs)
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    main()
