"""The child process that serves one GGUF model with llama.cpp over HTTP; started by `llama_cpp`, not by hand.

It does not choose ports or keys and never outlives its parent: when the parent is gone, it ends itself.
"""

import argparse
import os
import time
from pathlib import Path

API_KEY_VARIABLE = "LEASTWISE_LLAMA_API_KEY"
PARENT_POLL_S = 0.25


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
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
    if arguments.adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(arguments.adapter), 1.0)]
    return xllamacpp.Server(params)


def main() -> None:
    """Serve until the parent is gone."""
    arguments = _arguments()
    server = _start(arguments, os.environ[API_KEY_VARIABLE])
    while os.getppid() == arguments.parent_pid:
        time.sleep(PARENT_POLL_S)
    del server
    os._exit(0)


if __name__ == "__main__":
    main()
