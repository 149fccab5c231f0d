"""This machine's speed is measured once; what a training reaches of it may be corrected later."""

import pytest

from leastwise.models import hardware
from leastwise.rows.use_case_file import load


def test_a_corrected_share_counts_for_a_machine_that_was_measured_before(tmp_path, monkeypatch: pytest.MonkeyPatch):
    case = load("alert-triage")
    before = hardware.of(case, tmp_path)
    assert before.flops_per_s > 1e8 and before.usd_per_hour == case.training.usd_per_hour
    monkeypatch.setattr(hardware, "_measured", lambda: pytest.fail("measured twice"))
    assert hardware.of(case, tmp_path) == before
    monkeypatch.setattr(hardware, "CPU_SHARE", {name: 2 * share for name, share in hardware.CPU_SHARE.items()})
    assert hardware.of(case, tmp_path).flops_per_s == pytest.approx(2 * before.flops_per_s)
