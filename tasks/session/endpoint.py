"""Whether self_host can leave its endpoint where the use case says, asked before money. It starts nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence

from leastwise.serving.settings import settings_of
from leastwise.use_case import Stage, UseCase


def check_endpoint(use_case: UseCase) -> None:
    """Where self_host may leave an endpoint on a machine, nobody can reach it without a key."""
    if use_case.hosting.endpoint == "process" and "self_host" in use_case.reachable_stages:
        settings_of(use_case.hosting)


def check_cluster(use_case: UseCase, possible: Sequence[Stage]) -> None:
    """The cluster in which self_host is judged is reached by this machine; with LEASTWISE_POOLS=1 another machine does
    it, which says so itself.
    """
    from leastwise.serving.cluster.place import check_reachable

    is_judged_there = use_case.hosting.endpoint == "cluster" and "self_host" in possible
    if is_judged_there and os.environ.get("LEASTWISE_POOLS") != "1":
        check_reachable(use_case)
