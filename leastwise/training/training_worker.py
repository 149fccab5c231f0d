"""One of several processes that train together: `leastwise.training.training_processes` starts it by torch's launcher.

It trains with `leastwise.training.training` and decides nothing. `python -m leastwise.training.training_worker REQUEST
--join 1` makes a further machine take part in a training that the first has started.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from leastwise.models.machine import device_here
from leastwise.progress import TrainingProgress
from leastwise.training.request import TrainingRequest
from leastwise.training.training import train_here
from leastwise.training.training_processes import HELD, join, out_of, progress_file


def run(request: TrainingRequest, out: Path) -> None:
    """This process's part; the first of all tells the progress."""
    from accelerate import PartialState

    state = PartialState(cpu=device_here().type == "cpu")
    if state.num_processes != request.settings.launch.together:
        raise RuntimeError(f"{state.num_processes} processes train, {request.settings.launch.together} were asked for")
    file = progress_file(out)

    def tell(progress: TrainingProgress) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(progress)) + "\n")

    train_here(request, out, tell if state.is_main_process else None)
    state.destroy_process_group()


def _end_with_who_started_this() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock a waiting thread would hold when Python shuts down
        pass
    os._exit(1)


def main() -> int:
    """Trains this process's part, or with --join starts a machine's processes; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", type=Path, help="the request file of the training, on storage that all machines see")
    parser.add_argument(
        "--join", type=int, metavar="NODE", help="start this machine's processes, as machine NODE (from 1)"
    )
    chosen = parser.parse_args()
    if not chosen.request.exists():
        sys.exit(
            f"{chosen.request}: not there; the first machine writes it when it starts, on storage that all machines see"
        )
    request = TrainingRequest.model_validate_json(chosen.request.read_text(encoding="utf-8"))
    if chosen.join is not None and "LOCAL_RANK" not in os.environ:
        return join(chosen.request, request.settings.launch, chosen.join)
    if os.environ.get(HELD):
        threading.Thread(target=_end_with_who_started_this, daemon=True).start()
    run(request, out_of(chosen.request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
