"""The tables that were made for a use case (examples of a retraining, copies of a log) as a run names them and as this
machine has them.

What the use case's own file names is the user's to place: a machine that is to read it needs it at an `s3://` URI, or
at the same path.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.record.handover.handover import Handover
from leastwise.stores import storage
from leastwise.stores.made.naming import STATE, is_made, name_of_table
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def handed_over(client: MlflowClient, use_case: UseCase) -> UseCase:
    """The use case with names in place of the paths of what was made for it, so that another machine finds it; no path
    of this machine's state directory is left in what its data says.
    """
    handover = Handover(client, storage.home())

    def name(path: str) -> str:
        named = name_of_table(path, handover.home)
        return handover.hand_over(Path(path).parent.name, Path(path).name).uri if is_made(named) else named

    return _with_tables(use_case, name)


def brought(client: MlflowClient, use_case: UseCase) -> UseCase:
    """The use case with the paths of this machine; what cannot be had is left as it is named, for whoever reads it."""
    handover = Handover(client, storage.home())

    def path(uri: str) -> str:
        try:
            if uri.startswith(STATE):
                return storage.resolve(uri, handover.home)
            return str(handover.path(uri)) if is_made(uri) else uri
        except BadInput as error:
            log.warning(str(error))
            return uri

    return _with_tables(use_case, path)


def _with_tables(use_case: UseCase, change: Callable[[str], str]) -> UseCase:
    values = {name: value for name, value in use_case.data if isinstance(value, str)}
    changed = {name: new for name, value in values.items() if (new := change(value)) != value}
    return use_case.model_copy(update={"data": use_case.data.model_copy(update=changed)}) if changed else use_case
