"""Which runtime is chosen of those that were measured; measuring itself is tested with a trained student."""

from leastwise.models.runtime_choice import fastest
from leastwise.models.student_runtime import RuntimeSpeed


def measured(runtime, alone, at_32, accuracy):
    return RuntimeSpeed(runtime=runtime, requests_per_s=alone, requests_per_s_at_32=at_32, dev_accuracy=accuracy)


def test_the_fastest_runtime_is_chosen_of_those_that_hold_quality():
    plain, half = measured("float32", 100, 300, 0.80), measured("bfloat16", 110, 600, 0.798)
    quick = measured("int8", 400, 900, 0.79)
    assert fastest([plain, half, quick]) == half
    assert fastest([plain, half, quick.model_copy(update={"dev_accuracy": 0.8})]).runtime == "int8"
    assert fastest([plain, half.model_copy(update={"requests_per_s": 40})]) == plain
