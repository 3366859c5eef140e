"""Probes of PS3.18 chapters 11 (worklist) and 13 (storage commitment), for dicomweb.py: rules by their sections.

It knows nothing of the server, and schedules its workitems for a station that no server is.
"""

import base64
import json
import os
import socket
import struct
import time
from urllib.parse import urlparse

from pydicom import Dataset, config
from pydicom.uid import CTImageStorage, generate_uid

JSON = "application/dicom+json"
PUSH = "1.2.840.10008.5.1.4.34.6.1"
WORKLIST, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
STATION = "PROBE" + generate_uid()[-8:]
LABEL = "Probe " + generate_uid()[-8:]
LOCK, OTHER_LOCK = generate_uid(), generate_uid()
WORKITEM, IN_BODY, WATCHED, DROPPED = (generate_uid() for _ in range(4))
STUDY = generate_uid()


def element(vr, *values):
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def code(value, scheme="99PROBE"):
    return {"00080100": element("SH", value), "00080102": element("SH", scheme), "00080104": element("LO", "Probe")}


def workitem(station=STATION, **changes):
    """Every attribute of PS3.4 table CC.2.5-3 that a creator sends (types 1 and 2)."""
    dataset = {
        "00080005": element("CS", "ISO_IR 192"),
        "00081080": element("LO"), "00081084": element("SQ"),
        "00100010": element("PN", {"Alphabetic": "Probe^Anna"}), "00100020": element("LO", f"{station}A"),
        "00100030": element("DA", "19500102"), "00100040": element("CS", "F"), "00101002": element("SQ"),
        "0020000D": element("UI", STUDY),
        "00380010": element("LO"), "00380014": element("SQ"),
        "00400400": element("LT"),
        "00404005": element("DT", "20260131101500"),
        "00404018": element("SQ", code("110004", "DCM")),
        "00404021": element("SQ", {"0040E020": element("CS", "DICOM"), "0020000D": element("UI", STUDY)}),
        "00404025": element("SQ", code(station)), "00404026": element("SQ"), "00404027": element("SQ"),
        "00404041": element("CS", "READY"),
        "0040A370": element("SQ"),
        "00741000": element("CS", "SCHEDULED"), "00741002": element("SQ"),
        "00741200": element("CS", "MEDIUM"), "00741202": element("LO", LABEL), "00741204": element("LO", "Probe step"),
        "00741210": element("SQ"), "00741216": element("SQ"),
    }
    dataset.update(changes)
    return {key: value for key, value in dataset.items() if value is not None}


def state(value, lock=None):
    dataset = {"00741000": element("CS", value)}
    if lock:
        dataset["00081195"] = element("UI", lock)
    return dataset


def strict(dataset):
    """The same, when pydicom reads every value of it and none of these breaks the rules of its VR."""
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    try:
        for element in Dataset.from_json(dataset).iterall():
            element.value
    finally:
        config.settings.reading_validation_mode = before
    keys = list(dataset)
    assert keys == sorted(keys), "the attributes are not in the order of their tags"
    return dataset


def first(dataset, key):
    return dataset.get(key, {}).get("Value", [None])[0]


class Channel:
    """The client side of RFC 6455, as far as text frames go."""

    def __init__(self, url, headers=()):
        parts = urlparse(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            more = self.socket.recv(4096)
            assert more, "the connection was closed in the handshake"
            self.rest += more
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])

    def take(self, count):
        while len(self.rest) < count:
            more = self.socket.recv(4096)
            assert more, "the channel was closed"
            self.rest += more
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def event(self):
        """The next text frame; control frames are passed over."""
        while True:
            kind, length = self.take(2)
            length &= 127
            if length == 126:
                length = struct.unpack("!H", self.take(2))[0]
            elif length == 127:
                length = struct.unpack("!Q", self.take(8))[0]
            payload = self.take(length)
            if kind & 15 == 1:
                return strict(json.loads(payload))

    def of(self, uid, kind):
        """The next event of a kind about a workitem."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            event = self.event()
            if (first(event, "00001000"), first(event, "00001002")) == (uid, kind):
                return event
        raise AssertionError(f"no event {kind}")

    def close(self):
        self.socket.close()


def add(rule, status, equal, images):
    """Registers the probes; `images` are stored already."""

    def send(server, method, path, dataset=None, accept=JSON):
        headers = {"Accept": accept}
        body = b""
        if dataset is not None:
            headers["Content-Type"] = JSON
            body = json.dumps(dataset).encode()
        return server.session.request(method, server.base + path, data=body, headers=headers, timeout=60)

    def get(server, uid):
        answer = status(server.get(f"/workitems/{uid}", JSON), 200).json()
        return strict(answer[0] if isinstance(answer, list) else answer)

    def warned(answer, text):
        found = answer.headers.get("Warning", "")
        assert found.startswith("299 ") and found.endswith(text), f"Warning {found!r}, expected … {text!r}"

    # ---- create, retrieve, search

    @rule("11.4.3", "201 and the location of a workitem that is created under a UID of the query")
    def _(server):
        answer = status(send(server, "POST", f"/workitems?{WORKITEM}", workitem()), 201)
        for header in ("Location", "Content-Location"):
            assert answer.headers.get(header, "").endswith(f"/workitems/{WORKITEM}"), header

    @rule("11.4.1.1", "the UID may be in the dataset")
    def _(server):
        answer = send(server, "POST", "/workitems", workitem(**{"00080018": element("UI", IN_BODY)}))
        status(answer, 201)
        equal(first(get(server, IN_BODY), "00080018"), IN_BODY)

    @rule("11.4.3.1", "409 for a workitem that exists")
    def _(server):
        status(send(server, "POST", f"/workitems?{WORKITEM}", workitem()), 409)

    for keyword, key in (("ScheduledProcedureStepPriority", "00741200"), ("ProcedureStepLabel", "00741204"),
                         ("ScheduledProcedureStepStartDateTime", "00404005"), ("InputReadinessState", "00404041"),
                         ("ProcedureStepState", "00741000")):
        @rule("Table CC.2.5-3 of PS3.4", f"400 for a workitem without {keyword}")
        def _(server, key=key):
            status(send(server, "POST", f"/workitems?{generate_uid()}", workitem(**{key: None})), 400)

    @rule("Table CC.2.5-3 of PS3.4", "400 for a workitem that is not SCHEDULED, or has a Transaction UID")
    def _(server):
        started = workitem(**{"00741000": element("CS", "IN PROGRESS")})
        status(send(server, "POST", f"/workitems?{generate_uid()}", started), 400)
        locked = workitem(**{"00081195": element("UI", LOCK)})
        status(send(server, "POST", f"/workitems?{generate_uid()}", locked), 400)

    @rule("11.4.3.2", "a workitem that the server had to complete is created with its Warning")
    def _(server):
        answer = send(server, "POST", f"/workitems?{DROPPED}", workitem(**{"00741202": None, "00380010": None}))
        warned(status(answer, 201), "The Workitem was created with modifications.")
        assert first(get(server, DROPPED), "00741202"), "no WorklistLabel"

    @rule("8.7.3.3", "415 for a workitem in a type that is no dataset")
    def _(server):
        answer = server.session.post(f"{server.base}/workitems", data=b"x", headers={"Content-Type": "text/plain"}, timeout=60)
        status(answer, 415)

    @rule("11.5.3", "a workitem comes back as it was sent, with what the server adds")
    def _(server):
        found = get(server, WORKITEM)
        equal((first(found, "00080016"), first(found, "00080018")), (PUSH, WORKITEM))
        equal((first(found, "00741000"), first(found, "00741204")), ("SCHEDULED", "Probe step"))
        equal(first(first(found, "00404025"), "00080100"), STATION)
        assert first(found, "00404010"), "no ScheduledProcedureStepModificationDateTime"

    @rule("11.5.3.1", "404 for a workitem that is not there")
    def _(server):
        status(server.get(f"/workitems/{generate_uid()}", JSON), 404)

    @rule("8.7.3.2", "a workitem comes in XML when that is accepted")
    def _(server):
        answer = status(server.get(f"/workitems/{WORKITEM}", "application/dicom+xml"), 200)
        assert b'keyword="ProcedureStepLabel"' in answer.content

    for what, parameters, count in (
        ("ProcedureStepState", {"ProcedureStepState": "SCHEDULED"}, 2), ("a tag", {"00741200": "MEDIUM"}, 2),
        ("another value", {"ProcedureStepState": "COMPLETED"}, 0),
        ("a code in a sequence", {"ScheduledStationNameCodeSequence.CodeValue": STATION}, 2),
        ("its SOPInstanceUID", {"SOPInstanceUID": WORKITEM}, 1),
        ("a list of UIDs", {"SOPInstanceUID": f"{WORKITEM},{IN_BODY}"}, 2),
        ("a range of its start", {"ScheduledProcedureStepStartDateTime": "20260131-20260201"}, 2),
        ("an open range", {"ScheduledProcedureStepStartDateTime": "20260201-"}, 0),
        ("the patient's name", {"PatientName": "probe*"}, 2), ("the input's study", {"00404021.0020000D": STUDY}, 2),
    ):
        @rule("11.9 and table CC.2.5-3 of PS3.4", f"workitems are matched by {what}")
        def _(server, parameters=parameters, count=count):
            found = server.find("/workitems", WorklistLabel=LABEL, **parameters)
            equal(len(found), count)

    @rule("11.9.1", "limit and offset page through workitems")
    def _(server):
        every = [first(strict(item), "00080018") for item in server.find("/workitems", WorklistLabel=LABEL)]
        paged = [server.find("/workitems", WorklistLabel=LABEL, limit=1, offset=k) for k in range(2)]
        equal([first(page[0], "00080018") for page in paged], every)

    @rule("11.9.3", "workitems behind those of a page are counted in a Warning")
    def _(server):
        for offset, left in ((0, 1), (1, 0)):
            answer = status(server.get("/workitems", JSON, WorklistLabel=LABEL, limit=1, offset=offset), 200)
            said = f"There are {left} additional results that can be requested"
            assert (said in answer.headers.get("Warning", "")) == bool(left), answer.headers.get("Warning")

    @rule("11.4.3.1", "400 for a creation without a body, 415 for one of another type, 406 for an answer in one")
    def _(server):
        status(send(server, "POST", f"/workitems?{generate_uid()}"), 400)
        text = {"Content-Type": "text/plain", "Accept": JSON}
        address = f"{server.base}/workitems?{generate_uid()}"
        status(server.session.post(address, data=b"x", headers=text, timeout=60), 415)
        status(server.get(f"/workitems/{WORKITEM}", "image/png"), 406)

    @rule("8.5", "405 for a method that a workitem has not")
    def _(server):
        status(server.session.put(f"{server.base}/workitems", timeout=60), 405)
        status(server.session.get(f"{server.base}/workitems/{WORKITEM}/state", timeout=60), 405)

    @rule("11.5.3", "a workitem says where it is, and comes in XML when that is accepted")
    def _(server):
        answer = status(server.get(f"/workitems/{WORKITEM}", "application/dicom+xml"), 200)
        assert answer.headers["Content-Type"].startswith(("application/dicom+xml", "multipart/related")), answer.headers
        assert b'keyword="ProcedureStepState"' in answer.content
        assert answer.headers.get("Content-Location", "").endswith(f"/workitems/{WORKITEM}")
        head = status(server.session.head(f"{server.base}/workitems/{WORKITEM}", headers={"Accept": JSON}, timeout=60), 200)
        equal(head.content, b"")

    @rule("CC.2.8.1.3.2 of PS3.4", "the Transaction UID is not answered and not matched")
    def _(server):
        answer = server.get("/workitems", JSON, TransactionUID=LOCK)
        assert answer.status_code in (204, 400) or answer.json() == [], answer.status_code

    # ---- update and state

    @rule("11.6.3", "a SCHEDULED workitem is updated without a Transaction UID")
    def _(server):
        status(send(server, "POST", f"/workitems/{WORKITEM}", {"00741200": element("CS", "HIGH")}), 200)
        equal(first(get(server, WORKITEM), "00741200"), "HIGH")

    @rule("11.6.3.2", "a Transaction UID for a workitem that is not claimed is refused with its Warning")
    def _(server):
        answer = send(server, "POST", f"/workitems/{WORKITEM}?{LOCK}", {"00741200": element("CS", "LOW")})
        warned(status(answer, 400, 409), "The target URI did not reference a claimed Workitem.")

    @rule("CC.2.6.2 of PS3.4", "400 for an update of the state, or of whom it is about")
    def _(server):
        status(send(server, "POST", f"/workitems/{WORKITEM}", {"00741000": element("CS", "COMPLETED")}), 400)
        status(send(server, "POST", f"/workitems/{WORKITEM}", {"00100020": element("LO", "other")}), 400)

    @rule("11.6.3.1", "404 for an update of a workitem that is not there")
    def _(server):
        status(send(server, "POST", f"/workitems/{generate_uid()}", {"00741200": element("CS", "LOW")}), 404)

    @rule("11.7.3.2", "400 with its Warning for a claim without a Transaction UID")
    def _(server):
        answer = send(server, "PUT", f"/workitems/{WORKITEM}/state", state("IN PROGRESS"))
        warned(status(answer, 400), "The Transaction UID is missing.")

    @rule("Table CC.1.1-2 of PS3.4", "a SCHEDULED workitem is not completed")
    def _(server):
        answer = send(server, "PUT", f"/workitems/{WORKITEM}/state", state("COMPLETED", LOCK))
        warned(status(answer, 400, 409), "The submitted request is inconsistent with the state of the UPS Instance.")

    @rule("11.7.3.2", "400 for a state that is none, 404 for a workitem that is not there")
    def _(server):
        status(send(server, "PUT", f"/workitems/{WORKITEM}/state", state("PAUSED", LOCK)), 400)
        status(send(server, "PUT", f"/workitems/{WORKITEM}/state", state("SCHEDULED", LOCK)), 400, 409)
        status(send(server, "PUT", f"/workitems/{generate_uid()}/state", state("IN PROGRESS", LOCK)), 404)

    @rule("11.7.3.1", "a workitem is claimed, and only once")
    def _(server):
        status(send(server, "PUT", f"/workitems/{WORKITEM}/state", state("IN PROGRESS", LOCK)), 200)
        equal(first(get(server, WORKITEM), "00741000"), "IN PROGRESS")
        again = send(server, "PUT", f"/workitems/{WORKITEM}/state", state("IN PROGRESS", LOCK))
        warned(status(again, 400, 409), "The submitted request is inconsistent with the state of the UPS Instance.")

    @rule("11.5.3.3", "the Transaction UID of a claimed workitem is not handed out")
    def _(server):
        assert "00081195" not in get(server, WORKITEM)

    @rule("11.7.3.2", "a claimed workitem is not given back")
    def _(server):
        status(send(server, "PUT", f"/workitems/{WORKITEM}/state", state("SCHEDULED", LOCK)), 400, 409)
        equal(first(get(server, WORKITEM), "00741000"), "IN PROGRESS")

    @rule("11.8.3", "409 with its Warning for a wish of which the performer would not hear")
    def _(server):
        answer = send(server, "POST", f"/workitems/{WORKITEM}/cancelrequest", {"00741238": element("LT", "never mind")})
        warned(status(answer, 409), "The performer cannot be contacted.")

    @rule("11.6.3.1", "400 with its Warning for an update without the Transaction UID, or with another")
    def _(server):
        change = {"00741002": element("SQ", {"00741004": element("DS", 50)})}
        warned(status(send(server, "POST", f"/workitems/{WORKITEM}", change), 400), "The Transaction UID is missing.")
        other = send(server, "POST", f"/workitems/{WORKITEM}?{OTHER_LOCK}", change)
        warned(status(other, 400), "The Transaction UID is incorrect.")
        status(send(server, "POST", f"/workitems/{WORKITEM}?{LOCK}", change), 200)

    @rule("11.7.3.2", "400 with its Warning for another Transaction UID")
    def _(server):
        answer = send(server, "PUT", f"/workitems/{WORKITEM}/state", state("COMPLETED", OTHER_LOCK))
        warned(status(answer, 400), "The Transaction UID is incorrect.")

    @rule("CC.2.5.1.1 of PS3.4", "a workitem that lacks what its end requires is not completed")
    def _(server):
        answer = send(server, "PUT", f"/workitems/{WORKITEM}/state", state("COMPLETED", LOCK))
        warned(status(answer, 400, 409), "The submitted request is inconsistent with the state of the UPS Instance.")

    @rule("11.7.3.1", "a workitem with what it requires is completed; again, it is so already")
    def _(server):
        performed = {
            "00404028": element("SQ", code(STATION)), "00404050": element("DT", "20260131101600"),
            "00404019": element("SQ", code("110004", "DCM")), "00404051": element("DT", "20260131101700"),
            "00404033": element("SQ"),
        }
        change = {"00741216": element("SQ", performed), "00081195": element("UI", LOCK)}
        status(send(server, "POST", f"/workitems/{WORKITEM}", change), 200)
        status(send(server, "PUT", f"/workitems/{WORKITEM}/state", state("COMPLETED", LOCK)), 200)
        again = send(server, "PUT", f"/workitems/{WORKITEM}/state", state("COMPLETED", LOCK))
        warned(status(again, 200), "The UPS is already in the requested state of COMPLETED.")

    @rule("11.6.3.1", "400 for an update of a workitem that has ended")
    def _(server):
        answer = send(server, "POST", f"/workitems/{WORKITEM}?{LOCK}", {"00741200": element("CS", "LOW")})
        warned(status(answer, 400), "The submitted request is inconsistent with the current state of the Workitem.")

    @rule("11.8.3", "409 with its Warning for a wish to cancel what is completed, 404 for what is not there")
    def _(server):
        answer = send(server, "POST", f"/workitems/{WORKITEM}/cancelrequest")
        warned(status(answer, 409), "The UPS is already COMPLETED.")
        status(send(server, "POST", f"/workitems/{generate_uid()}/cancelrequest"), 404)

    @rule("CC.2.2.3 of PS3.4", "a SCHEDULED workitem is cancelled at a wish, and says when and why")
    def _(server):
        wish = {"00741238": element("LT", "no longer wanted")}
        status(send(server, "POST", f"/workitems/{DROPPED}/cancelrequest", wish), 202)
        found = get(server, DROPPED)
        equal(first(found, "00741000"), "CANCELED")
        progress = first(found, "00741002")
        equal(first(progress, "00741238"), "no longer wanted")
        assert first(progress, "00404052") and first(progress, "0074100E"), "no time or code of the cancellation"
        again = send(server, "POST", f"/workitems/{DROPPED}/cancelrequest")
        warned(status(again, 202), "The UPS is already in the requested state of CANCELED.")

    # ---- subscriptions and events

    channels = {}

    def subscribe(server, uid, title, **parameters):
        return server.session.post(f"{server.base}/workitems/{uid}/subscribers/{title}", params=parameters, timeout=60)

    @rule("11.10.3", "201 and the WebSocket's address for a subscription to all workitems")
    def _(server):
        answer = status(subscribe(server, WORKLIST, f"{STATION}G"), 201)
        address = answer.headers.get("Content-Location", "")
        assert address.startswith(("ws://", "wss://")), address
        channels["all"] = address

    @rule("8.10.4", "the WebSocket opens")
    def _(server):
        channel = Channel(channels["all"])
        equal(channel.status, 101)
        channels["open"] = channel

    @rule("11.13", "a new workitem is told of: UPS State Report, in DICOM JSON")
    def _(server):
        status(send(server, "POST", f"/workitems?{WATCHED}", workitem(station=f"{STATION}W")), 201)
        event = channels["open"].of(WATCHED, 1)
        equal(event["00001000"]["vr"], "UI")
        equal((first(event, "00741000"), first(event, "00404041")), ("SCHEDULED", "READY"))
        assert isinstance(first(event, "00000110"), int), "no Message ID"

    @rule("CC.2.4.3 of PS3.4", "a new workitem with a station is told of as assigned")
    def _(server):
        event = channels["open"].of(WATCHED, 5)
        equal(first(first(event, "00404025"), "00080100"), f"{STATION}W")

    @rule("CC.2.4.3 of PS3.4", "a change of state and of progress is told")
    def _(server):
        status(send(server, "PUT", f"/workitems/{WATCHED}/state", state("IN PROGRESS", LOCK)), 200)
        equal(first(channels["open"].of(WATCHED, 1), "00741000"), "IN PROGRESS")
        change = {"00741002": element("SQ", {"00741004": element("DS", 40)})}
        status(send(server, "POST", f"/workitems/{WATCHED}?{LOCK}", change), 200)
        progress = first(channels["open"].of(WATCHED, 3), "00741002")
        equal(float(first(progress, "00741004")), 40.0)

    @rule("CC.2.4.3 of PS3.4", "a wish to cancel is told with its reason, and the performer decides")
    def _(server):
        wish = {"00741238": element("LT", "went home"), "0074100C": element("LO", "Probe")}
        status(send(server, "POST", f"/workitems/{WATCHED}/cancelrequest", wish), 202)
        event = channels["open"].of(WATCHED, 2)
        equal((first(event, "00741238"), first(event, "0074100C")), ("went home", "Probe"))
        assert first(event, "00741236"), "no Requesting AE"
        equal(first(get(server, WATCHED), "00741000"), "IN PROGRESS")
        status(send(server, "PUT", f"/workitems/{WATCHED}/state", state("CANCELED", LOCK)), 200)
        equal(first(channels["open"].of(WATCHED, 1), "00741000"), "CANCELED")

    @rule("11.12.3", "a suspended subscription hears of no new workitem; suspended twice it is 404")
    def _(server):
        path = f"{server.base}/workitems/{WORKLIST}/subscribers/{STATION}G/suspend"
        status(server.session.post(path, timeout=60), 200)
        status(server.session.post(path, timeout=60), 404)
        channels["open"].close()

    @rule("11.10.1.2", "a filtered subscription hears of what matches, and of nothing else")
    def _(server):
        keys = f"WorklistLabel={LABEL},ScheduledStationNameCodeSequence.CodeValue={STATION}F"
        answer = status(subscribe(server, FILTERED, f"{STATION}F", filter=keys), 201)
        channel = Channel(answer.headers["Content-Location"])
        other, match = generate_uid(), generate_uid()
        status(send(server, "POST", f"/workitems?{other}", workitem(station=f"{STATION}X")), 201)
        status(send(server, "POST", f"/workitems?{match}", workitem(station=f"{STATION}F")), 201)
        equal(first(channel.event(), "00001000"), match)
        channel.close()
        status(server.session.delete(f"{server.base}/workitems/{FILTERED}/subscribers/{STATION}F", timeout=60), 200)

    @rule("Table CC.2.3-2 of PS3.4", "who locks what is there is told of it, and of nothing once it is unsubscribed")
    def _(server):
        kept = generate_uid()
        status(send(server, "POST", f"/workitems?{kept}", workitem(station=f"{STATION}K")), 201)
        keys = {"ScheduledStationNameCodeSequence.CodeValue": f"{STATION}K", "deletionlock": "true"}
        answer = status(subscribe(server, FILTERED, f"{STATION}K", **keys), 201)
        channel = Channel(answer.headers["Content-Location"])
        equal(first(channel.of(kept, 1), "00741000"), "SCHEDULED")
        status(server.session.delete(f"{server.base}/workitems/{FILTERED}/subscribers/{STATION}K", timeout=60), 200)
        status(send(server, "PUT", f"/workitems/{kept}/state", state("IN PROGRESS", LOCK)), 200)
        other = generate_uid()
        status(subscribe(server, kept, f"{STATION}K"), 201)
        # What comes next is the state of the new subscription, and nothing of what happened between.
        equal(first(channel.event(), "00741000"), "IN PROGRESS")
        status(send(server, "POST", f"/workitems?{other}", workitem(station=f"{STATION}K")), 201)
        status(send(server, "PUT", f"/workitems/{kept}/state", state("CANCELED", LOCK)), 200)
        event = channel.event()
        equal((first(event, "00001000"), first(event, "00741000")), (kept, "CANCELED"))
        channel.close()

    @rule("11.12.3", "a suspended filtered subscription hears on of what it heard of")
    def _(server):
        path = f"{server.base}/workitems/{FILTERED}/subscribers/{STATION}P"
        known, later = generate_uid(), generate_uid()
        status(send(server, "POST", f"/workitems?{known}", workitem(station=f"{STATION}P")), 201)
        keys = f"ScheduledStationNameCodeSequence.CodeValue={STATION}P"
        answer = status(subscribe(server, FILTERED, f"{STATION}P", filter=keys), 201)
        status(server.session.post(f"{path}/suspend", timeout=60), 200)
        channel = Channel(answer.headers["Content-Location"])
        status(send(server, "POST", f"/workitems?{later}", workitem(station=f"{STATION}P")), 201)
        status(send(server, "PUT", f"/workitems/{known}/state", state("IN PROGRESS", LOCK)), 200)
        equal(first(channel.event(), "00001000"), known)
        channel.close()
        status(server.session.post(f"{server.base}/workitems/{known}/subscribers/{STATION}P/suspend", timeout=60), 400, 404)

    @rule("CC.2.4.3 of PS3.4", "a subscription to one workitem is answered with its state")
    def _(server):
        answer = status(subscribe(server, IN_BODY, f"{STATION}S"), 201)
        channel = Channel(answer.headers["Content-Location"])
        equal(first(channel.of(IN_BODY, 1), "00741000"), "SCHEDULED")
        channel.close()

    @rule("11.11.3", "an unsubscribed title is 404 when it is unsubscribed again")
    def _(server):
        path = f"{server.base}/workitems/{IN_BODY}/subscribers/{STATION}S"
        status(server.session.delete(path, timeout=60), 200)
        status(server.session.delete(path, timeout=60), 404)

    @rule("11.10.3.1", "404 for a subscription to nothing, 400 for a filter or a title that is none")
    def _(server):
        status(subscribe(server, generate_uid(), STATION), 404)
        status(subscribe(server, FILTERED, STATION), 400)
        status(subscribe(server, WORKLIST, "A-TITLE-OF-MORE-THAN-16"), 400)

    # ---- storage commitment

    transaction = generate_uid()

    def references(*instances):
        items = [{"00081150": element("UI", kind), "00081155": element("UI", uid)} for kind, uid in instances]
        return {"00081199": element("SQ", *items)}

    @rule("13.4.3 and J.2", "what is stored is committed to, what is not has its reason")
    def _(server):
        missing = generate_uid()
        asked = references(*((CTImageStorage, image.SOPInstanceUID) for image in images), (CTImageStorage, missing))
        answer = status(send(server, "POST", f"/commitment-requests/{transaction}", asked), 200, 202)
        for _ in range(20):
            if answer.status_code == 200:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
            answer = server.get(f"/commitment-requests/{transaction}", JSON)
        said = answer.json()
        said = strict(said[0] if isinstance(said, list) else said)
        kept = {first(item, "00081155") for item in said["00081199"]["Value"]}
        equal(kept, {image.SOPInstanceUID for image in images})
        failed = said["00081198"]["Value"][0]
        equal((first(failed, "00081155"), first(failed, "00081197")), (missing, 0x0112))

    @rule("13.5.3", "the answer can be fetched again, and is 404 under a UID that was not used")
    def _(server):
        status(server.get(f"/commitment-requests/{transaction}", JSON), 200)
        status(server.get(f"/commitment-requests/{generate_uid()}", JSON), 404)

    @rule("13.4.3", "409 for a Transaction UID that is in use, 400 for a request without instances")
    def _(server):
        asked = references((CTImageStorage, images[0].SOPInstanceUID))
        status(send(server, "POST", f"/commitment-requests/{transaction}", asked), 409)
        status(send(server, "POST", f"/commitment-requests/{generate_uid()}", {}), 400)


def add_sharing(rule, status, equal, origin, path):
    """Registers the probes of the CORS protocol, for a server that lets pages of `origin` in."""

    def preflight(server, origin):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        return server.session.options(server.base + path, headers=headers, timeout=60)

    @rule("Fetch 3.2", "a preflight of the allowed origin is answered for it alone")
    def _(server):
        answer = status(preflight(server, origin), 200, 204)
        equal(answer.headers.get("Access-Control-Allow-Origin"), origin)
        assert "authorization" in answer.headers.get("Access-Control-Allow-Headers", "").lower()
        assert "Access-Control-Allow-Origin" not in preflight(server, "http://other.example").headers

    @rule("Fetch 3.2", "an answer to the allowed origin may be read by it, and its ETag, Warning and Content-Location")
    def _(server):
        answer = status(server.get(path, JSON, {"Origin": origin}), 200)
        equal(answer.headers.get("Access-Control-Allow-Origin"), origin)
        exposed = {name.strip().lower() for name in answer.headers.get("Access-Control-Expose-Headers", "").split(",")}
        assert {"etag", "warning", "content-location"} <= exposed, exposed
        assert "origin" in answer.headers.get("Vary", "").lower(), "no Vary: Origin"
        assert answer.headers.get("Access-Control-Allow-Credentials") != "true" or answer.headers[
            "Access-Control-Allow-Origin"] != "*", "credentials with *"
