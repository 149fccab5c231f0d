"""The flows: each sequences tasks, branches on a verdict and returns. One deployable flow a file, of the same name.

They compute nothing and speak to nothing but Prefect. Start reading at `customize.py`, then `steps/stages.py`.
Importing any of them first makes the process quiet and keeps its state under the state directory.
"""

import gc
import logging
import os
import sys
import warnings

from flows.running.usage import answer_help, module_of

answer_help(sys.orig_argv)  # before anything that takes seconds to import

from flows.running.endings import end_on_sigterm, tell  # noqa: E402
from leastwise.stores import storage  # noqa: E402

_command = module_of(sys.orig_argv) or ""
if _command:
    gc.disable()  # an import leaves no garbage, and looking for some takes a fifth of it; on again before the flow runs
    # What goes wrong before the flow runs (a setting Prefect cannot read) is an ending like any other.
    end_on_sigterm()
    sys.excepthook = lambda _kind, error, _at: tell(error, _command.removeprefix("flows."))

# A hub is asked only where somebody says so: HF_HUB_OFFLINE=0 holds for both libraries that read it.
_OFFLINE = os.environ.get("HF_HUB_OFFLINE") or "1"

_DEFAULTS = {
    "PREFECT_HOME": str(storage.home() / "prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # an exception reaches the shell anyway; workers log at INFO
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # as prefect.yaml has it: a server takes who is silent for lost
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": _OFFLINE,
    "TRANSFORMERS_OFFLINE": _OFFLINE,
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for the JSON line
    "LANCE_LOG": "error",
    "LANCEDB_LOG": "error",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

# Deprecations inside pinned libraries are for us to read in a test run, not for whoever climbs a ladder.
warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", message=r"(?s).*An input example was not provided")  # the signature is given
# Prefect makes its folder on import, without parents: it is made when a flow starts, and a mere import makes none.
warnings.filterwarnings("ignore", message="Failed to create the Prefect home directory")
logging.getLogger("great_expectations").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

from tasks.session.console import show_notes  # noqa: E402 - after the environment is set

show_notes()
