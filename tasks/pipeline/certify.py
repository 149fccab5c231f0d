"""The certificate at the end of a climb that found what is enough: written, signed, logged, and kept as a file.

What it says is in `leastwise.record.certificate`. A key that cannot be used leaves it unsigned, and that is said aloud:
the climb's ending stands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.ladder.ending import ClimbEnding
from leastwise.record.certificate.checking import Checked, check_certificate
from leastwise.record.certificate.contents import Avoided, Certificate
from leastwise.record.certificate.markdown import as_markdown
from leastwise.record.certificate.signing import Signature, sign
from leastwise.record.certificate.writing import certificate_of
from leastwise.stores import storage
from tasks.session.artifacts import publish_markdown
from tasks.session.console import say

JSON, MARKDOWN = "certificate.json", "certificate.md"


def certify(work: Workspace, ending: ClimbEnding, avoided: Sequence[Avoided]) -> Path:
    """Write the certificate of a climb that ended at a stage or at the reference; gives back the file it is kept in."""
    use_case = work.use_case
    drawn = max(work.account.shares(work.question.key), default=use_case.alpha)
    now = datetime.now(UTC).replace(microsecond=0)
    certificate = certificate_of(work.run, work.question, work.catalogue, ending, avoided, drawn, now)
    signature = _signed(certificate, work.home)
    content = {"certificate": certificate.as_json(), "signature": signature.model_dump() if signature else None}
    written, note = json.dumps(content, indent=2, allow_nan=False), as_markdown(certificate, signature)
    work.run.log_text(written, JSON)
    work.run.log_text(note, MARKDOWN)
    kept = work.home / "certificates" / f"{use_case.name}-{work.run.id}.json"
    storage.write_bytes(kept, written.encode())
    publish_markdown(f"certificate-{use_case.name}", note)
    who = f"signed by {signature.fingerprint}" if signature else "NOT SIGNED"
    say(f"  … certificate until {certificate.expires_at:%Y-%m-%d}, {who}: {kept}")
    return kept


def _signed(certificate: Certificate, home: Path) -> Signature | None:
    try:
        return sign(certificate.as_json(), home)
    except (BadInput, OSError) as why:
        say(f"  … the certificate is NOT SIGNED: {why}")
        return None


def checked_file(uri: str, signer: str) -> Checked:
    """A certificate's file held to itself, as of now; BadInput where it is none."""
    return check_certificate(storage.read_bytes(uri), uri, datetime.now(UTC), signer)
