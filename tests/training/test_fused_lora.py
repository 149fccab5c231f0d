"""The fused layer against peft's own."""

import torch


def test_the_fused_lora_layer_computes_what_peft_computes_forward_and_backward():
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.layer import Linear

    from leastwise.training.fused_lora import FusedLoraLinear

    def ran(fused: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(12, 20, bias=False), torch.nn.Linear(20, 5, bias=False))
        config = LoraConfig(r=3, lora_alpha=7, target_modules=["0", "1"], init_lora_weights=False)
        if fused:
            config._register_custom_module({torch.nn.Linear: FusedLoraLinear})
        adapted = get_peft_model(model, config).train()
        assert all(isinstance(m, FusedLoraLinear) == fused for m in adapted.modules() if isinstance(m, Linear))
        x = torch.randn(4, 6, 12, requires_grad=True)
        out = adapted(x)
        (out**2).sum().backward()
        with torch.no_grad():
            again = adapted.eval()(x)
        return [out, again, x.grad, *(p.grad for p in adapted.parameters() if p.requires_grad)]

    plain, fused = ran(False), ran(True)
    assert len(plain) == len(fused) == 7
    for wanted, got in zip(plain, fused, strict=True):
        torch.testing.assert_close(got, wanted)
