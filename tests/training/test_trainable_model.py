"""A process that is sent its shards holds no weight of the base, and is otherwise the same model."""

import pytest
import torch

from leastwise.training.settings import TrainingSettings
from leastwise.training.trainable_model import trainable_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_without_weights_a_model_is_sharded_as_the_one_that_has_them(tiny, method):
    settings = TrainingSettings(method=method, upper_blocks_share=0.5)
    whole, empty = trainable_model(tiny, settings, CPU), trainable_model(tiny, settings, CPU, is_empty=True)
    shapes = [[(name, each.dtype, each.shape) for name, each in model.state_dict().items()] for model in (whole, empty)]
    assert shapes[0] == shapes[1], "what is sent is told apart by its place in this list"
    trained = [[(name, each.requires_grad) for name, each in model.named_parameters()] for model in (whole, empty)]
    assert trained[0] == trained[1], "and tied weights are one"
    frozen = [each for each in empty.parameters() if not each.requires_grad]
    assert frozen and all(each.is_meta for each in frozen)
    places = [each.data_ptr() for each in empty.parameters() if each.requires_grad]
    assert len(set(places)) == len(places), "the optimizer's weights are found by where they lie"
    for (name, one), (_, other) in zip(whole.named_buffers(), empty.named_buffers(), strict=True):
        assert torch.equal(one, other), f"{name} is sent by nobody"
