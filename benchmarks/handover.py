"""What it takes to hand over what was made: seconds for an adapter, a student, a bundle and a base of usual sizes.

`python -m benchmarks.handover [--quick]` (a tenth of the sizes) starts an MLflow server that hands artifacts on to an
S3 server, both on loopback, and is two machines with a state directory each: one publishes what it has, the other
fetches it and then asks for it once more. The base goes to S3 itself (`training.whole_models`). Files are random bytes,
since nothing of them is compressed; every digest is checked as in a climb. One line of JSON a thing; status 1 where
what came is not what was sent.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import flows  # noqa: F401 - keeps MLflow quiet
from leastwise.record.handover.handover import Handover
from leastwise.stores import storage
from leastwise.stores.made.naming import ADAPTERS, BASES, BUNDLES, STUDENTS

MB = 1_000_000
# Megabytes of each file, of the embedded models: LoRA of rank 16 on ten blocks of 135M; an encoder of 22M as ONNX with
# its tokenizer; such a base in 8 bits, its adapter and an index; a base of half a billion parameters in two bytes each.
THINGS: dict[str, tuple[str, Mapping[str, float]]] = {
    "adapter": (ADAPTERS, {"adapter_model.safetensors": 3.5, "adapter_config.json": 0.001}),
    "student": (STUDENTS, {"model.onnx": 90.0, "tokenizer.json": 0.7, "labels.json": 0.001}),
    "bundle": (BUNDLES, {"base.gguf": 145.0, "adapter.gguf": 7.0, "index.npz": 5.0, "candidate.json": 0.01}),
    "base": (BASES, {"model-1.safetensors": 500.0, "model-2.safetensors": 500.0, "tokenizer.json": 2.0}),
}
ON_S3 = "s3://leastwise/models"
BLOCK = 8 * MB
QUICK = 0.1


def make(place: Path, files: Mapping[str, float], share: float) -> float:
    """Write its files; gives the megabytes of all."""
    place.mkdir(parents=True)
    for name, size_mb in files.items():
        left = max(1, int(size_mb * share * MB))
        with (place / name).open("wb") as file:
            while left:
                file.write(os.urandom(written := min(left, BLOCK)))
                left -= written
    return sum(each.stat().st_size for each in place.iterdir()) / MB


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """What it gives, and the seconds it took."""
    began = time.monotonic()
    done = work()
    return done, round(time.monotonic() - began, 3)


def handed_over(name: str, folder: Path, share: float) -> dict[str, object]:
    """The figures of one thing."""
    from mlflow import MlflowClient

    kind, files = THINGS[name]
    maker, user = folder / "maker", folder / "user"
    size = make(maker / kind / name, files, share)
    wanted = storage.sha256(maker / kind / name)
    made, published_s = timed(lambda: Handover(MlflowClient(), maker, ON_S3).hand_over(kind, name))
    uri = str(getattr(made, "uri", ""))
    place, first_s = timed(lambda: Handover(MlflowClient(), user, ON_S3).path(uri))
    again, kept_s = timed(lambda: Handover(MlflowClient(), user, ON_S3).path(uri))
    return {
        "thing": name,
        "by": "S3" if kind == BASES else "MLflow",
        "mb": round(size, 1),
        "published_s": published_s,
        "first_fetch_s": first_s,
        "kept_s": kept_s,
        "is_the_same": place == again and storage.sha256(Path(str(place))) == wanted,
    }


def main() -> int:
    """Print the figures; 0 where everything that came is what was sent."""
    from tests.servers.mlflow_server import mlflow_server
    from tests.servers.s3_server import s3_server

    share, is_right = QUICK if "--quick" in sys.argv else 1.0, True
    with tempfile.TemporaryDirectory() as name, s3_server(Path(name, "s3")) as s3:
        os.environ.update(s3.environment())
        with mlflow_server(Path(name, "mlflow"), f"s3://{s3.bucket}/mlflow") as address:
            os.environ["MLFLOW_TRACKING_URI"] = address
            for each in THINGS:
                figures = handed_over(each, Path(name, each), share)
                print(json.dumps(figures), flush=True)
                is_right &= bool(figures["is_the_same"])
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
