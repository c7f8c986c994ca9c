#!/usr/bin/env python
"""Give the commands a hundred bad inputs, and say what each of them does: nothing may go wrong in silence.

    python research/try_bad_inputs.py [--output docs/results/reliability/bad_inputs.json] [--only TEXT]

The inputs are made in a scratch folder, see the folder bad_inputs, and the commands run in this process with
an untrained model. Verdicts: "said" (an error in words of this project that says what is expected), "right" (the
expected result), "SILENT" (neither), "TRACEBACK" (an error of a library).
"""

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from bad_inputs import CASES, Case, Scratch
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]


def attempt(case: Case, scratch: Scratch) -> tuple[str, str]:
    """What a command says about an input, and the verdict."""
    screen, log = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setLevel(logging.WARNING)
    ours = logging.getLogger("rec_attend_d2")
    ours.addHandler(handler)
    failure, library = "", False
    try:
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            result = case.run(scratch)
        screen.write(f"\nresult: {result}")
    except SystemExit as error:
        failure = str(error)
    except (ValueError, OSError, FloatingPointError, TypeError) as error:
        # Of this project are errors that its own code raises.
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        library = not last.startswith(str(ROOT / "rec_attend_d2"))
        failure = f"{type(error).__name__}: {error}"
    except Exception as error:  # what no command catches
        failure, library = f"{type(error).__name__}: {error}", True
    finally:
        ours.removeHandler(handler)
    words = "\n".join([failure, log.getvalue(), screen.getvalue()])
    if library:
        return failure, "TRACEBACK"
    if not case.expected.search(words):
        return failure or " ".join(words.split())[-300:], "SILENT"
    found = case.expected.search(words)
    line = next((line for line in words.splitlines() if found and found.group(0).split("\n")[0] in line), failure)
    return line.strip(), "said" if failure or log.getvalue() else "right"


def main() -> None:
    """Try all, print a table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="json file to write")
    parser.add_argument("--only", default="", metavar="TEXT", help="inputs whose name or command has this text")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["DETECTRON2_DATASETS"] = folder
        for number, case in enumerate(CASES):
            if arguments.only not in f"{case.command} {case.name}":
                continue
            scratch = Scratch(Path(folder) / str(number), f"n{number}")
            message, verdict = attempt(case, scratch)
            rows.append((case.name, case.command, message.replace(str(scratch.folder), "DIR"), verdict))
            print(f"{verdict:9} {case.command:8} {case.name}: {rows[-1][2][:150]}", flush=True)
    counts = Counter(row[-1] for row in rows)
    print("\n" + tabulate(counts.items(), ["verdict", "inputs"]))
    if arguments.output:
        keys = ("input", "command", "message", "verdict")
        entries = [dict(zip(keys, row, strict=True)) for row in rows]
        arguments.output.write_text(json.dumps({"verdicts": counts, "inputs": entries}, indent=1) + "\n")
    sys.exit(1 if counts["SILENT"] or counts["TRACEBACK"] else 0)


if __name__ == "__main__":
    main()
