"""A certificate for people, in Markdown. The JSON beside it is what is signed and checked; this only shows it."""

from __future__ import annotations

from leastwise.record.certificate.contents import Certificate, Entry
from leastwise.record.certificate.signing import Signature
from leastwise.record.reports import figure_of

UNSIGNED = "**NOT SIGNED: anybody may have written or changed this.**"


def as_markdown(certificate: Certificate, signature: Signature | None) -> str:
    """The certificate with who signed it, or that nobody did."""
    signed = f"Signed (Ed25519) by `{signature.fingerprint}`." if signature else UNSIGNED
    sure = "" if certificate.sure else ", **not surely**"
    days = f"Measured {certificate.measured_at:%Y-%m-%d}, issued {certificate.issued_at:%Y-%m-%d}, holds until "
    days += f"{certificate.expires_at:%Y-%m-%d} at most"
    lines = [
        f"# What is enough for {_cell(certificate.wanted.name)}: {certificate.outcome}{sure}",
        "",
        _cell(certificate.reason),
        "",
        f"{signed} {days}; it ends earlier where",
        *(f"- {reason}" for reason in certificate.ends_earlier),
        "",
        *_ladder(certificate),
        "",
        *_figures(certificate),
        "",
        *_bases(certificate),
    ]
    return "\n".join(lines)


def _ladder(certificate: Certificate) -> list[str]:
    rows = [row for entry in certificate.ladder for row in _rows(certificate, entry)]
    return [
        "| stage | verdict | requirement | estimate | interval | wanted | surely (gate) | n | alpha pass / fail |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def _rows(certificate: Certificate, entry: Entry) -> list[str]:
    record, stage = entry.record, entry.record.stage
    if record.skipped or record.evaluation is None or record.verdict is None:
        return [f"| {stage} | SKIPPED | {_cell(record.skipped or '')} | | | | | | |"]
    is_reported = stage == "reference" and certificate.wanted.reference != "stop"
    verdict = "(no LLM)" if is_reported else record.verdict.outcome
    rows, measurements = [], record.evaluation.measurements
    for wanted in certificate.wanted.gate_requirements:
        name, sign = wanted.name, "≥" if wanted.better == "higher" else "≤"
        bounds = f"{sign} {figure_of(name, wanted.bound)} | {sign} {figure_of(name, wanted.limit)}"
        measured = measurements.get(name)
        if measured is None:
            figures = f"not measured | | {bounds} | 0 | "
        else:
            low, high = figure_of(name, measured.lower), figure_of(name, measured.upper)
            alphas = f"{measured.alpha_pass:.2g} / {measured.alpha_fail:.2g}"
            figures = f"{figure_of(name, measured.estimate)} | [{low}, {high}] | {bounds} | {measured.n} | {alphas}"
        rows.append(f"| {stage} | {verdict} | {name} | {figures} |")
    return rows


def _figures(certificate: Certificate) -> list[str]:
    tested = ", ".join(f"{name} {figure.estimate:.4g} (n={figure.n})" for name, figure in certificate.test.items())
    saving, running = certificate.saving, certificate.running
    stages = ", ".join(each.stage for each in saving.avoided) or "none"
    lines = [
        f"- Confirmed on the untouched test split: **{certificate.confirmed}**{f': {tested}' if tested else ''}.",
        f"- Not climbing further saves ${saving.expected_usd:,.2f} by estimate, ${saving.least_usd:,.2f} at least and "
        f"${saving.most_usd:,.2f} at most (stages not run: {stages}). The climb spent ${certificate.usd_spent:,.4f}.",
    ]
    if running:
        least, most = running.least_usd_per_1k_requests, running.most_usd_per_1k_requests
        lines.append(
            f"- 1,000 requests cost ${running.usd_per_1k_requests:.4f} [${least:.4f}, ${most:.4f}]; "
            f"{certificate.wanted.requests_per_month:,} a month ${running.usd_per_month:,.2f} "
            f"[${running.least_usd_per_month:,.2f}, ${running.most_usd_per_month:,.2f}]."
        )
    return lines


def _bases(certificate: Certificate) -> list[str]:
    models = certificate.prices.models
    return [
        f"A candidate at or beyond the gate's limit passes with probability at most {certificate.wanted.alpha:g} over "
        f"the whole ladder, of which this climb had {certificate.alpha_drawn:.3g}.",
        "",
        f"Prices (the book of {certificate.prices.book_as_of}), dollars per million tokens:",
        *(
            f"- {_cell(each.uri)} ({each.venue}): input {each.price.input:g}, output {each.price.output:g}"
            f"{', illustrative' if each.price.illustrative else f', as of {each.price.as_of}'}"
            for each in models
        ),
        "",
        "Data:",
        *(f"- {each.name}: {each.rows:,} rows, SHA-256 {each.sha256}" for each in certificate.data),
        "",
        f"MLflow run {certificate.mlflow_run_id}; " + ", ".join(f"{k} {v}" for k, v in certificate.versions.items()),
        "",
        "To check the JSON beside this: `python -m flows.audit certificate.json --signer FINGERPRINT`.",
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
