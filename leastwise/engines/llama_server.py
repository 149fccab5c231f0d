"""The child process that serves one GGUF model with llama.cpp over HTTP; started by `llama_cpp`, not by hand.

It does not choose ports or keys and never outlives its parent: when the parent is gone, it ends itself. Asked to drain
(SIGUSR1) it takes no new connection, answers what it has, and ends.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

API_KEY_VARIABLE = "LEASTWISE_LLAMA_API_KEY"
PARENT_POLL_S = 0.25
QUIET_POLLS = 3  # a request that was read and is no task yet is in no count


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, action="append", default=[])
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    return parser.parse_args()


def _start(arguments: argparse.Namespace, api_key: str) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.gguf)
    params.model_alias = {arguments.name}
    params.hostnames, params.port = ["127.0.0.1"], arguments.port
    params.api_keys = [api_key]
    # llama.cpp allows every web page to call it by default: only our own origin, which serves no page.
    params.cors_origins, params.cors_credentials, params.cors_origins_explicit = "http://127.0.0.1", False, True
    params.ui, params.offline, params.endpoint_slots = False, True, False
    params.n_parallel = arguments.parallel
    params.n_ctx = arguments.context_tokens * arguments.parallel  # llama.cpp shares n_ctx out among the slots
    params.fit_params = False  # keep the context we asked for
    params.cache_ram_mib = 256
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = arguments.threads
        threads.poll = 0  # spinning threads starve whatever else runs on the machine
    is_one = len(arguments.adapter) == 1  # of several each request says which
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), float(is_one)) for path in arguments.adapter]
    params.endpoint_metrics = True
    return xllamacpp.Server(params)


def _listening(port: int) -> socket.socket | None:
    """llama.cpp's own listening socket, of which it tells nothing; None where the system does not list open files."""
    folder = Path("/proc/self/fd")
    for name in [path.name for path in folder.iterdir()] if folder.is_dir() else []:
        with contextlib.suppress(OSError):
            found = socket.socket(fileno=os.dup(int(name)))
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[1] == port:
                return found
    return None


def _has_requests(server: Any) -> bool:
    said = server.handle_metrics()
    text = said if isinstance(said, str) else bytes(said).decode()
    return any(int(count) for count in re.findall(r"^llamacpp:requests_\w+ (\d+)", text, re.MULTILINE))


def main() -> None:
    """Serve until the parent is gone, or what it had when it was told to drain is answered."""
    arguments, is_draining = _arguments(), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: is_draining.set())
    server, quiet = _start(arguments, os.environ[API_KEY_VARIABLE]), 0
    listening = None
    while os.getppid() == arguments.parent_pid and quiet < QUIET_POLLS:
        if is_draining.wait(PARENT_POLL_S):
            if listening is None and (listening := _listening(arguments.port)):
                listening.shutdown(socket.SHUT_RDWR)
            quiet = 0 if _has_requests(server) else quiet + 1
            time.sleep(PARENT_POLL_S)
    os._exit(0)


if __name__ == "__main__":
    main()
