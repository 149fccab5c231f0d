"""What a pod runs: `python -m leastwise.serving.cluster.pod`, an endpoint of one bundle, whatever is promoted later.

The bundle is named by its digest, fetched once and checked. It follows no alias: which pods serve is for the Service to
say.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from leastwise.answering.bundle.contents import USE_CASE
from leastwise.engines.processes import StartError
from leastwise.errors import BadInput
from leastwise.record.client import connect
from leastwise.record.handover.handover import Handover
from leastwise.record.published.pin import Pin
from leastwise.redaction import hide_all, redacted
from leastwise.serving.cluster.asked import load_key_of
from leastwise.serving.cluster.manifests import BUNDLE_VARIABLE, DRAIN_S, PORT, VERSION_VARIABLE
from leastwise.serving.live import LiveModel
from leastwise.serving.live_model import open_winner
from leastwise.serving.server import check_settings, endpoint_of, listening, until_asked_to_end
from leastwise.serving.settings import EndpointSettings, keys_of
from leastwise.serving.worker import BAD_INPUT, Work
from leastwise.stores import storage
from leastwise.use_case import UseCase

OPENING = "leastwise.serving.cluster.pod:open_bundle"
HOST_VARIABLE = "LEASTWISE_POD_HOST"  # the address it listens at; unset: all of the pod's


async def open_bundle(name: str, version: str) -> LiveModel:
    """The bundle of this pod; BadInput where it is not whole."""
    return await open_winner(bundle(), version)


def bundle() -> Path:
    """The folder of this pod's bundle, fetched where it is not there yet."""
    uri = os.environ.get(BUNDLE_VARIABLE, "")
    return Handover(connect(), storage.home()).path(uri)


def work_of(settings: EndpointSettings, socket: int) -> Work:
    """What the workers of this pod serve."""
    use_case = UseCase.model_validate_json((bundle() / USE_CASE).read_bytes())
    key = next(iter(keys_of(settings)), "")
    return Work(
        name=use_case.name,
        mask=use_case.data.mask,
        settings=settings,
        socket=socket,
        opening=OPENING,
        pin=Pin(version=os.environ[VERSION_VARIABLE], is_fixed=True),
        load_key=load_key_of(key) if key else "",
    )


def main() -> int:
    """Serve; gives back the exit status: 0 asked to end, 2 what a person can put right, 1 it did not start (its last
    lines say what).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    hide_all(os.environ)
    host = os.environ.get(HOST_VARIABLE) or "0.0.0.0"  # noqa: S104 - a pod has an address of its own
    try:
        settings = EndpointSettings(host=host, port=PORT, drain_s=DRAIN_S)
        check_settings(settings)
        with listening(settings) as bound:
            bound.set_inheritable(True)
            with endpoint_of(work_of(settings, bound.fileno()), bound) as running, until_asked_to_end(running):
                running.wait()
    except (BadInput, StartError) as error:
        print(redacted(str(error)), file=sys.stderr, flush=True)
        return BAD_INPUT if isinstance(error, BadInput) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
