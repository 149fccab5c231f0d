"""Counted weights against published ones: Llama 3 from its model cards, SmolLM2-135M from its file."""

import pytest

from leastwise.money.lora import LLAMA_3_8B, LLAMA_3_70B, Shape, trainable_share, upper_blocks

SMOLLM2 = Shape(blocks=30, hidden=576, feed_forward=1536, heads=9, key_value_heads=3, vocabulary=49152, tied=True)


@pytest.mark.parametrize(
    ("shape", "weights"), [(LLAMA_3_8B, 8_030_261_248), (LLAMA_3_70B, 70_553_706_496), (SMOLLM2, 134_515_008)]
)
def test_the_counted_weights_are_those_published(shape, weights):
    assert shape.weights == weights


@pytest.mark.parametrize(("shape", "adapter"), [(LLAMA_3_8B, 41_943_040), (LLAMA_3_70B, 207_093_760)])
def test_a_lora_of_rank_16_on_all_linear_layers_has_the_weights_peft_reports(shape, adapter):
    assert trainable_share(shape, "lora", 16, 1.0) == adapter / (shape.weights + adapter)


def test_the_share_grows_with_rank_and_blocks_and_is_less_on_larger_models():
    shares = [trainable_share(shape, "lora", 16, 0.34) for shape in (SMOLLM2, LLAMA_3_8B, LLAMA_3_70B)]
    assert shares == sorted(shares, reverse=True) and shares[0] < 0.02
    assert trainable_share(LLAMA_3_8B, "lora", 32, 0.5) > trainable_share(LLAMA_3_8B, "lora", 16, 0.5)
    assert trainable_share(LLAMA_3_8B, "full", 16, 1.0) == pytest.approx(
        32 * LLAMA_3_8B.weights_a_block / LLAMA_3_8B.weights
    )


def test_at_least_one_block_is_trained():
    assert list(upper_blocks(30, 0.34)) == list(range(20, 30))
    assert list(upper_blocks(30, 0.001)) == [29]
