"""What the judges share: how an outside reader is called, and how its objections are kept and told."""

import subprocess
import sys
from pathlib import Path

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


def tell(main):
    """Judges the folder that the command line names; exits 1 after the objections, if there is one."""
    main(Path(sys.argv[1]), "--even" in sys.argv[2:])
    print("\n".join(f"OBJECTION {o}" for o in objections) or "no objection")
    sys.exit(bool(objections))
