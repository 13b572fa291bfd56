"""The end of a process that has run user code."""

import subprocess
import sys

SCRIPT = """
from celery_daemons.forkserver import process_end

def refuse(function, arguments):
    raise RuntimeError("can't start new thread")

process_end.start_new_thread = refuse
print("last words", end="")
process_end.end_process(3)
"""


def test_a_process_without_a_thread_for_its_end_flushes_and_exits() -> None:
    """Attacks invariant 2: the exception left the process alive, and its daemon was never released."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stdout) == (3, "last words")
    assert "can't start new thread" in done.stderr
