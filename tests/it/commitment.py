"""Storage commitment by another maker, for tests.

commitment.py ask PORT here|later OWN_PORT CLASS=INSTANCE...
    asks the listener on PORT to commit; `here` waits for the report on the same association, `later` releases it and
    waits on OWN_PORT; says one line: the event, what is committed and what failed and why.
commitment.py keep PORT LOG here|fail|OTHER_PORT
    is a storage SCP on PORT that commits to what it took, on the same association, or on one of its own to OTHER_PORT;
    `fail` does not commit the first time that it is asked. Logs `stored UID` and `asked COUNT`.
"""

import sys
import threading

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.fsm import InvalidEventError
from pynetdicom.sop_class import StorageCommitmentPushModel

INSTANCE = "1.2.840.10008.1.20.1.1"
how, port, *rest = sys.argv[1:]


def item(class_uid, instance_uid):
    one = Dataset()
    one.ReferencedSOPClassUID = class_uid
    one.ReferencedSOPInstanceUID = instance_uid
    return one


def ask(place, own_port, references):
    heard = threading.Event()

    def report(event):
        information = event.event_information
        committed = sorted(one.ReferencedSOPInstanceUID for one in information.get("ReferencedSOPSequence", []))
        failed = sorted(
            f"{one.ReferencedSOPInstanceUID}:{one.FailureReason:04X}"
            for one in information.get("FailedSOPSequence", [])
        )
        same = information.TransactionUID == request.TransactionUID
        print(event.event_type, same, ",".join(committed), ",".join(failed), sep="|", flush=True)
        heard.set()
        return 0x0000, None

    handlers = [(evt.EVT_N_EVENT_REPORT, report)]
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = Sequence([item(*one.split("=")) for one in references])
    ae = AE(ae_title="MODALITY")
    ae.add_requested_context(StorageCommitmentPushModel)
    server = None
    if place == "later":
        there = AE(ae_title="MODALITY")
        there.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        server = there.start_server(("127.0.0.1", int(own_port)), block=False, evt_handlers=handlers)
    association = ae.associate("127.0.0.1", int(port), ae_title="ICTUS", evt_handlers=handlers if place == "here" else [])
    assert association.is_established
    status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, INSTANCE)
    assert status.Status == 0x0000, status
    if place == "later":
        association.abort()
    assert heard.wait(60)
    if place == "here":
        association.release()
    if server:
        server.shutdown()


def keep(log, place):
    times = 0

    def write(line):
        with open(log, "a") as lines:
            lines.write(line + "\n")

    def stored(event):
        write(f"stored {event.request.AffectedSOPInstanceUID}")
        return 0x0000

    def answer(association, request, fails):
        reply = Dataset()
        reply.TransactionUID = request.TransactionUID
        items = [item(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in request.ReferencedSOPSequence]
        if fails:
            for one in items:
                one.FailureReason = 0x0112
            reply.FailedSOPSequence = Sequence(items)
        else:
            reply.ReferencedSOPSequence = Sequence(items)
        status, _ = association.send_n_event_report(reply, 2 if fails else 1, StorageCommitmentPushModel, INSTANCE)
        return status.Status

    def call_back(request, title="PEER"):
        ae = AE(ae_title=title)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate("127.0.0.1", int(place), ae_title="ICTUS", ext_neg=[role])
        write(f"answered as {title}: {answer(association, request, title != 'PEER'):04X}")
        association.release()
        if title != "PEER":
            call_back(request)

    def asked(event):
        nonlocal times
        times += 1
        request = event.action_information
        write(f"asked {len(request.ReferencedSOPSequence)}")
        if place in ("here", "fail"):
            arguments = (event.assoc, request, place == "fail" and times == 1)
            timer = threading.Timer(0.3, answer, arguments)
        else:
            # Later than the association is kept for.
            timer = threading.Timer(7, call_back, (request, "STRANGER"))
        timer.start()
        return 0x0000, None

    ae = AE(ae_title="PEER")
    ae.supported_contexts = AllStoragePresentationContexts[:127]
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.66.4")
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34")
    ae.add_supported_context(StorageCommitmentPushModel)
    handlers = [(evt.EVT_C_STORE, stored), (evt.EVT_N_ACTION, asked)]
    server = ae.start_server(("127.0.0.1", int(port)), block=False, evt_handlers=handlers)
    print("ready", flush=True)
    sys.stdin.read()
    server.shutdown()


def silently(told):
    # pynetdicom has no word for data that a thread of its own sends while the association is aborted.
    if told.exc_type is not InvalidEventError:
        threading.__excepthook__(told)


threading.excepthook = silently
if how == "ask":
    ask(rest[0], rest[1], rest[2:])
else:
    keep(*rest)
