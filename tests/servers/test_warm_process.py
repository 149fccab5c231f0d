"""A run that is forked is what a command of its own would be: what it is given, what it says, how it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.warm_process import WarmProcess


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmProcess]:
    made = WarmProcess("timeit", ("json",))
    yield made
    made.end()


@pytest.mark.parametrize(
    "code",
    [
        "import os, sys; sys.stderr.write(os.environ['WHOSE'] + os.getcwd() + sys.stdin.read())",
        "import os; os.environ['WHOSE'] = 'nobody'; os.chdir('/')",  # which the next run does not see
        "import sys; sys.stderr.write(repr(sys.argv[1:]))",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('gone wrong')",
        "import os; os.kill(os.getpid(), 9)",
        "print(1 / 0)",
    ],
)
def test_a_forked_run_is_given_says_and_ends_as_a_command_of_its_own(
    warm: WarmProcess, tmp_path: Path, code: str
) -> None:
    command = [sys.executable, "-m", "timeit", "-n1", "-r1", "-s", code]
    environment = os.environ | {"WHOSE": "the test's"}
    for _ in range(2):
        forked, own = (
            run(command, input=b"what is asked", cwd=tmp_path, env=environment, capture_output=True)
            for run in (warm.run, subprocess.run)
        )
        assert forked.returncode == own.returncode
        assert forked.stderr.splitlines()[-1:] == own.stderr.splitlines()[-1:]
    assert warm.started().poll() is None, "whatever a run does, the next can be made"
