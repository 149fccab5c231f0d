"""What a stage's run holds of the endpoint of its candidate: where it answers and what it carried, in words, as a table
and drawn.

It measures nothing (see `leastwise.serving.deployed`), and no verdict rests on it.
"""

from __future__ import annotations

import json
import math

from leastwise.money.load import QUANTILES, TOLERANCE, Carried, Repriced
from leastwise.record.run import DEPLOYED, ENDPOINT, LOAD, NOTE
from leastwise.record.stage_run import SHOWN, StageRun

RATE = "load.requests_per_s"  # stands where the endpoint was measured
TABLE, FIGURE = "load.json", "load.png"
UNDER_LOAD, THE_ENDPOINT = "\n\n### Its endpoint under load\n", "\n\n### Its endpoint\n"
COLUMNS = ("in flight", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors", "requests")
STANDS = "The verdict stands on what was gated."


def log_load(run: StageRun, carried: Carried, priced: Repriced | None) -> str:
    """Log what an endpoint carried to a stage's run, and to the run it links to; gives back the words of it."""
    words = load_in_words(carried, priced, run.figures.get("usd_per_1k_requests"))
    figures, origin = carried.figures(), run.origin
    if priced:
        figures |= {"load.machines": float(priced.machines), "load.usd_per_1k_requests.more": priced.more_usd_per_1k}
    table = {"columns": COLUMNS, "data": [[_cell(value) for value in row] for row in _rows(carried)]}
    for each in (run, *([origin] if origin.id != run.id else [])):
        each.log_text(json.dumps(table), TABLE)
        _log_figure(each, carried, priced)
        shown = [one for one in json.loads(each.tag(SHOWN) or "[]") if one["path"] != TABLE]
        each.write(figures, {LOAD: words, SHOWN: json.dumps([*shown, {"path": TABLE, "type": "table"}])})
    note = run.tag(NOTE).partition(UNDER_LOAD)[0].partition(THE_ENDPOINT)[0]
    run.write(tags={NOTE: f"{note}{UNDER_LOAD}\n{load_table(carried)}\n\n{words}"})
    return words


def log_endpoint(run: StageRun, url: str, words: str) -> None:
    """Log where a stage's candidate answers (empty: nowhere), and how deploying it went."""
    note = run.again().tag(NOTE).partition(THE_ENDPOINT)[0]
    run.write(tags={ENDPOINT: url, DEPLOYED: words, NOTE: f"{note}{THE_ENDPOINT}\n{words}"})


def load_of(run: StageRun) -> str:
    """What is logged of a stage's endpoint under load, in Markdown; empty where nothing is."""
    return run.tag(NOTE).partition(UNDER_LOAD)[2].partition(THE_ENDPOINT)[0].strip()


def load_in_words(carried: Carried, priced: Repriced | None, usd_per_1k: float | None = None) -> str:
    """What was carried, what the gate priced, and a warning where the one is less than the other."""
    best, bound = carried.within_bound, carried.bound_ms
    if best is None:
        first = _ms(carried.levels[0].p95_ms) if carried.levels else "nothing was asked"
        limit = f"no load is answered within {bound:,.0f} ms" if bound is not None else "too many requests are lost"
        return f"**Beware**: at its endpoint {limit} (p95 with one in flight: {first}). {STANDS}"
    within = f" within {bound:,.0f} ms" if bound is not None else ""
    words = (
        f"It carries {best.requests_per_s:,.3g} requests a second{within}, {best.concurrency} in flight "
        f"(p95 {_ms(best.p95_ms)})."
    )
    return f"{words} {_priced_in_words(priced, usd_per_1k)}" if priced else words


def _priced_in_words(priced: Repriced, usd_per_1k: float | None) -> str:
    now, then = "", ""
    if usd_per_1k is not None:
        then, now = f", ${usd_per_1k:.4f} for 1,000", f", ${max(usd_per_1k + priced.more_usd_per_1k, 0):.4f} for 1,000"
    said = (
        f"The gate priced {priced.priced_per_s:,.3g} a second ({_machines(priced.priced_machines)}{then}); "
        f"by this it is {_machines(priced.machines)}{now}."
    )
    if not priced.carries_less:
        return said
    less = 1 - priced.carried_per_s / priced.priced_per_s
    return (
        f"**Beware**: that is {less:.0%} less than the gate priced (up to {TOLERANCE:.0%} is not said). {said} {STANDS}"
    )


def load_table(carried: Carried) -> str:
    """Every level in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for concurrency, rate, *times, errors, requests in _rows(carried):
        took = " | ".join(_ms(each).removesuffix(" ms") for each in times)
        lines.append(f"| {concurrency:.0f} | {rate:,.3g} | {took} | {errors:.0f} | {requests:,.0f} |")
    return "\n".join(lines)


def _rows(carried: Carried) -> list[list[float]]:
    rows = []
    for each in carried.levels:
        times = (each.quantile_ms(share) for share in QUANTILES)
        rows.append([each.concurrency, each.requests_per_s, *times, each.errors, len(each.latencies_ms)])
    return rows


def _log_figure(run: StageRun, carried: Carried, priced: Repriced | None) -> None:
    """Requests a second and latency, both against what was in flight."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    speed, latency = figure.subplots(1, 2)
    at = [each.concurrency for each in carried.levels]
    speed.plot(at, [each.requests_per_s for each in carried.levels], marker="o", label="endpoint")
    if priced:
        speed.axhline(priced.priced_per_s, color="tab:grey", linestyle="--", label="priced by the gate")
    for share in QUANTILES:
        ms = [_cell(each.quantile_ms(share)) for each in carried.levels]
        latency.plot(at, [math.nan if each is None else each for each in ms], marker="o", label=f"p{100 * share:.0f}")
    if carried.bound_ms is not None:
        latency.axhline(carried.bound_ms, color="tab:red", linestyle="--", label="bound")
    speed.set(title="What the endpoint carries", ylabel="requests a second")
    latency.set(title="What a request takes there", ylabel="milliseconds")
    for axis in (speed, latency):
        axis.set(xlabel="requests in flight", xscale="log", ylim=(0, None))
        axis.set_xticks(at, [str(each) for each in at])
        axis.minorticks_off()
        axis.legend(fontsize=7)
    run.client.log_figure(run.id, figure, FIGURE)


def _cell(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if math.isfinite(value) else "for ever"


def _machines(count: int) -> str:
    return f"{count} machine{'' if count == 1 else 's'}"
