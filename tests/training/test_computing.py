"""How hardware computes a training: chosen for GPUs that are not here, and the same training on the one that is."""

import dataclasses
import os

import pytest
import torch

from leastwise.errors import BadInput
from leastwise.models.machine import THREADS, check_quantize, device_here, fitting, threads_of
from leastwise.training.causal.computing import Card, Sizes, card_here, chosen, sizes_of
from leastwise.training.settings import TrainingSettings, settings_of
from leastwise.use_case.training import Launch, Training

GB = 10**9
EIGHT_B = Sizes(weights=8.03e9, blocks=32, hidden=4096, feed_forward=14336, vocabulary=128_256)
SMALL = Sizes(weights=135e6, blocks=30, hidden=576, feed_forward=1536, vocabulary=49_152)
H100 = Card("H100", 80 * GB, (9, 0))
A10G = Card("A10G", 24 * GB, (8, 6))
WHOLE = TrainingSettings(upper_blocks_share=1.0, max_tokens=1024)


def test_on_a_cpu_all_is_as_the_settings_say():
    asked = TrainingSettings(examples_at_once=4, gradient_checkpointing=True)
    how = chosen(asked, None, EIGHT_B, (1024, 64))
    assert (how.attention, how.optimizer, how.at_once) == ("eager", "adamw_torch", 4)
    assert how.gradient_checkpointing and not how.packed and not how.shards


def test_a_gpu_computes_as_many_at_once_as_fit_before_it_computes_anything_twice():
    at_once = {
        (card.name, tokens): chosen(WHOLE, card, EIGHT_B, (tokens, 64))
        for card in (H100, A10G)
        for tokens in (128, 1024)
    }
    assert at_once["H100", 128].at_once == 8 and not at_once["H100", 128].gradient_checkpointing
    assert 1 < at_once["H100", 1024].at_once < 8 and not at_once["H100", 1024].gradient_checkpointing
    assert at_once["A10G", 1024].gradient_checkpointing, "one row alone is too much for what the weights leave"
    assert chosen(WHOLE, A10G, SMALL, (512, 64)).at_once == 8
    for how in at_once.values():
        assert how.optimizer == "adamw_torch_fused" and how.attention == "sdpa" and "GB left" in how.reasons[-1]


def test_4_bits_leave_room_where_16_do_not():
    quantized = WHOLE.model_copy(update={"quantize": "nf4"})
    plain, small = (EIGHT_B.held_bytes(each) / GB for each in (WHOLE, quantized))
    assert 16 < plain < 18 and 5 < small < 7
    assert not chosen(quantized, A10G, EIGHT_B, (1024, 64)).gradient_checkpointing
    assert EIGHT_B.held_bytes(WHOLE.model_copy(update={"method": "full"})) > 100 * GB


def test_what_cannot_fit_is_tried_in_the_smallest_pieces_and_said():
    how = chosen(WHOLE, Card("small", 12 * GB, (7, 5), has_flash_attention=True), EIGHT_B, (8192, 64))
    assert (how.at_once, how.gradient_checkpointing, how.attention) == (1, True, "sdpa"), "flash needs a newer card"
    assert "may not fit" in how.reasons[-1]


def test_flash_attention_where_it_is_there_packs_rows():
    how = chosen(WHOLE, dataclasses.replace(H100, has_flash_attention=True), EIGHT_B, (512, 64))
    assert (how.attention, how.packed) == ("flash_attention_2", True)


def test_several_gpus_share_the_model_and_with_it_its_memory():
    wanted = WHOLE.model_copy(update={"launch": Launch(processes=8)})
    assert chosen(wanted, A10G, EIGHT_B, (1024, 64), 8).shards
    assert not chosen(
        wanted.model_copy(update={"launch": Launch(processes=8, shard=False)}), H100, EIGHT_B, (64, 8), 8
    ).shards
    assert not chosen(wanted.model_copy(update={"quantize": "nf4"}), H100, EIGHT_B, (64, 8), 8).shards
    with pytest.raises(BadInput, match="cannot be shared"):
        chosen(wanted, H100, EIGHT_B, (64, 8), 3)


@pytest.mark.parametrize(("at_most", "at_once"), [(None, 8), (4, 4), (3, 2), (1, 1)])
def test_pieces_are_equal_parts_of_a_step(at_most, at_once):
    assert chosen(WHOLE, H100, SMALL, (64, 8), 1, at_most).at_once == at_once


def test_what_a_model_is_estimated_from_is_read_off_its_files(tiny):
    assert sizes_of(tiny) == Sizes(weights=3_219_776.0, blocks=2, hidden=64, feed_forward=128, vocabulary=49152)


def test_without_a_gpu_everything_is_on_the_cpu():
    if not torch.cuda.is_available():
        assert card_here() is None and device_here() == torch.device("cpu")


def test_threads_are_those_of_the_machine_and_of_the_containers_share():
    assert 1 <= THREADS <= len(os.sched_getaffinity(0))
    assert [threads_of(2), threads_of(64), threads_of(1)] == [2, 16, 1]
    assert [threads_of(8, "200000 100000"), threads_of(8, "50000 100000"), threads_of(8, "max 100000")] == [2, 1, 8]


def test_what_was_trained_before_there_were_these_settings_keeps_its_key():
    written = TrainingSettings().identity()
    assert "quantize" not in written and "checkpoints" not in written
    assert TrainingSettings(checkpoints="file:///a").identity() == written, "where they lie changes no weights"
    assert '"quantize":"nf4"' in TrainingSettings(quantize="nf4").identity()
    assert not {"quantize", "checkpoints"} & Training().model_dump().keys()
    asked = Training(quantize="nf4", checkpoints="s3://bucket/checkpoints")
    assert (settings_of(asked).quantize, settings_of(asked).checkpoints) == ("nf4", "s3://bucket/checkpoints")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "full"}, "adapters only"),
        ({"pretrain_method": "full"}, "adapters only"),
        ({"launch": {"processes": 2, "shard": True}}, "not sharded"),
    ],
)
def test_4_bits_are_refused_where_they_cannot_be_trained(fields, says):
    with pytest.raises(ValueError, match=says):
        Training(quantize="nf4", **fields)


@pytest.mark.parametrize("uri", ["checkpoints", "http://x/y", "file://here"])
def test_checkpoints_go_to_a_folder_every_machine_reaches(uri):
    with pytest.raises(ValueError, match="checkpoints"):
        Training(checkpoints=uri)


def test_4_bits_without_their_library_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("leastwise.models.machine.find_spec", lambda _: None)
    with pytest.raises(BadInput, match=r"training\.quantize.*leastwise\[quantize\]"):
        check_quantize("nf4")
    check_quantize(None)


def test_packed_rows_have_the_loss_of_padded_ones(tiny):
    """Rows one after the other see nothing of each other, and the first token of one is not told by the one before."""
    from transformers import AutoModelForCausalLM

    from leastwise.training.completion_trainer import CompletionCollator, CompletionTrainer, PackedCollator

    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32, attn_implementation="eager").train()
    batch = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, -100, 8, 9]},
        {"input_ids": [11, 12, 13], "labels": [-100, 12, 13]},
        {"input_ids": [14, 15], "labels": [14, 15]},
    ]
    trainer = object.__new__(CompletionTrainer)
    trainer.args = dataclasses.make_dataclass("Arguments", ["average_tokens_across_devices"])(False)
    losses = []
    for collator in (CompletionCollator(2), PackedCollator()):
        made = collator(batch)
        made["labels"][made["labels"] == 14] = -100
        losses.append(trainer.compute_loss(model, made).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_an_adapter_is_trained_on_4_bits_and_answers_on_them(tiny, tmp_path):
    """QLoRA, on the CPU too; where bitsandbytes is not installed, this is not run."""
    pytest.importorskip("bitsandbytes")
    from leastwise.models.chat import format_chat
    from leastwise.training.training import fine_tune
    from leastwise.training.training_rows import Row

    rows = [Row(format_chat(tiny, [{"role": "user", "content": f"number {n}"}]), "odd") for n in range(8)]
    settings = TrainingSettings(
        quantize="nf4", batch_size=4, epochs=6, max_examples=48, learning_rate=1e-2, upper_blocks_share=1.0, threads=1
    )
    report = fine_tune(tiny, rows, [], settings, tmp_path / "out")
    assert report.reload_difference == 0.0 and report.train_losses[-1] < report.train_losses[0] / 2


def test_what_does_not_fit_is_halved_and_not_tried_again(monkeypatch):
    monkeypatch.setattr("leastwise.models.machine._FITS", {})
    tried = []

    def compute(size: int) -> int:
        tried.append(size)
        if size > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size

    assert [fitting("texts", 64, compute), fitting("texts", 64, compute), fitting("texts", 8, compute)] == [16, 16, 8]
    assert tried == [64, 32, 16, 16, 8] and fitting("others", 20, compute) == 20
    with pytest.raises(torch.OutOfMemoryError):
        fitting("too large", 4, lambda size: compute(100))
