"""Models on this machine: causal models, encoders and students as they are found, loaded, run and exported, in torch.

It trains nothing, asks nothing over HTTP and serves nothing. Start reading at `weights` (where a model comes
from), then `causal_model`, `encoder` and `student` (the three kinds there are).
"""
