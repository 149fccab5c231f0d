"""One of several processes that train together: `leastwise.training.training_processes` starts it by torch's launcher.

It trains with `leastwise.training.training` and decides nothing. `python -m leastwise.training.training_worker URL
--join 1` makes a further machine take part: URL is the folder that `training.launch.request` (or
`training.checkpoints`) names; rows, base and checkpoints are fetched from there into the machine's own LEASTWISE_HOME.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.models.machine import device_here
from leastwise.progress import TrainingProgress
from leastwise.stores import storage
from leastwise.training.machines.guest import Guest, arrive
from leastwise.training.machines.published import Call, calls_at, published_at
from leastwise.training.request import TrainingRequest
from leastwise.training.training import train_here
from leastwise.training.training_processes import HELD, check, log_file, out_of, progress_file, request_file, running

log = logging.getLogger("leastwise.training.training_worker")

_LOOK_S = 2.0
_POLL_S = 0.2
_LAST_S = 60.0  # for this machine's processes to end after the first one's did
_SILENT = timedelta(hours=2)  # the first process puts checkpoints away meanwhile; who is lost is heard of otherwise


def run(request: TrainingRequest, out: Path) -> None:
    """This process's part; the first of all tells the progress."""
    from accelerate import PartialState

    state = PartialState(cpu=device_here().type == "cpu", timeout=_SILENT)
    if state.num_processes != request.settings.launch.together:
        raise RuntimeError(f"{state.num_processes} processes train, {request.settings.launch.together} were asked for")
    file = progress_file(out)

    def tell(progress: TrainingProgress) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(progress)) + "\n")

    train_here(request, out, tell if state.is_main_process else None)
    state.destroy_process_group()


def join(url: str, node: int, within_s: float, stays: bool) -> int:
    """Takes part as machine `node` (from 1) in what is called for at this URL; gives the exit status.

    With `stays` in one training after the other, until none was called for within `within_s` seconds. BadInput where
    none was, or where this machine cannot take part.
    """
    status = None
    while (status is None or stays) and (found := _arrived(url, node, within_s, is_first=status is None)):
        status = _take_part(*found, url, node)
    return 1 if status is None else status


def _arrived(url: str, node: int, within_s: float, is_first: bool) -> tuple[Call, Guest] | None:
    """The first training that this machine is let into; None where there is no further one."""
    deadline, why = time.monotonic() + within_s, "no training was called for there"
    while True:
        for call in calls_at(url):
            guest = arrive(call, node)
            if isinstance(guest, Guest):
                return call, guest
            why = guest
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_S)
    if is_first:
        raise BadInput(
            f"{url}: nothing to join within {within_s:g} s: {why}; start the training on the first machine, with this "
            "URI as training.launch.request, and see that training.launch.meet_at is reached from here"
        )
    return None


def _take_part(call: Call, guest: Guest, url: str, node: int) -> int:
    out = storage.home() / "joined" / f"{call.key}-{node}"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        check(call.launch)
        request = published_at(url).here(call, storage.home())
        request_file(out).write_text(request.model_dump_json(), encoding="utf-8")
        place = guest.place()
        log.info(f"machine {node} takes part in the training {call.key}")
        meets = call.launch.model_copy(update={"meet_at": f"{place.host}:{place.port}"})
        with running(meets, node, request_file(out), log_file(out), place.interface) as started:
            _until(lambda: started.poll() is not None or guest.ended)
            if guest.ended == "":
                _until(lambda: started.poll() is not None, _LAST_S)
        if started.returncode or guest.ended:
            raise RuntimeError(guest.ended or log_file(out).read_text(encoding="utf-8")[-2000:])
        guest.done()
    except Exception as error:
        guest.failed(f"{type(error).__name__}: {error}")
        log.error(f"machine {node}: {error}")
        return 1
    finally:
        guest.close()
        request_file(out).unlink(missing_ok=True)
    for left in out.parent.glob(f"{out.name}.*"):  # its part of the checkpoints, its log
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return 0


def _until(is_so: Callable[[], object], within_s: float = float("inf")) -> None:
    deadline = time.monotonic() + within_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _end_with_who_started_this() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock a waiting thread would hold when Python shuts down
        pass
    os._exit(1)


def main() -> int:
    """Trains this process's part, or with --join starts a machine's processes; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", help="with --join: the URL that training.launch.request names (s3:// or file:///)")
    parser.add_argument("--join", type=int, metavar="K", help="take part as machine K (from 1; the first is 0)")
    parser.add_argument(
        "--within", type=float, default=600.0, metavar="SECONDS", help="how long to wait for a training (600)"
    )
    parser.add_argument("--stay", action="store_true", help="join one training after the other")
    chosen = parser.parse_args()
    if chosen.join is not None:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        try:
            return join(_as_url(chosen.request), chosen.join, chosen.within, chosen.stay)
        except BadInput as error:
            print(error, file=sys.stderr)
            return 2
    if os.environ.get(HELD):
        threading.Thread(target=_end_with_who_started_this, daemon=True).start()
    file = Path(chosen.request)
    run(TrainingRequest.model_validate_json(file.read_text(encoding="utf-8")), out_of(file))
    return 0


def _as_url(place: str) -> str:
    return place if "://" in place else Path(place).absolute().as_uri()


if __name__ == "__main__":
    sys.exit(main())
