"""Training on this machine: causal models by adapters or whole, and encoder students from a teacher's labels.

It judges nothing it trained, pays no machine and records nothing in MLflow. Start reading at `training` (one training
from request to report), then `distillation`.
"""
