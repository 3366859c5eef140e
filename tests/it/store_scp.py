"""A storage SCP for tests: store_scp.py PORT LOG MODE...

Writes one line for each instance to LOG when it answers: its SOP instance UID, transfer syntax and status.
Modes: only=UID (takes this SOP class alone), status=HEX (answers this), die=N (ends without an answer at the Nth
instance), hold=PATH (answers when this file is there),
also=UID (takes this transfer syntax, too).
"""

import os
import sys
import time

from pynetdicom import AE, AllStoragePresentationContexts, evt

port, log, *modes = sys.argv[1:]
modes = dict(mode.split("=", 1) for mode in modes)
count = 0


def store(event):
    global count
    count += 1
    if count == int(modes.get("die", 0)):
        os._exit(1)
    while "hold" in modes and not os.path.exists(modes["hold"]):
        time.sleep(0.05)
    status = int(modes.get("status", "0"), 16)
    with open(log, "a") as lines:
        lines.write(f"{event.request.AffectedSOPInstanceUID} {event.context.transfer_syntax} {status:04X}\n")
        lines.flush()
        os.fsync(lines.fileno())
    return status


ae = AE(ae_title="PEER")
if "only" in modes:
    ae.add_supported_context(modes["only"])
else:
    ae.supported_contexts = AllStoragePresentationContexts
    for context in AllStoragePresentationContexts if "also" in modes else []:
        ae.add_supported_context(context.abstract_syntax, modes["also"])
server = ae.start_server(("127.0.0.1", int(port)), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
print("ready", flush=True)
sys.stdin.read()
server.shutdown()
