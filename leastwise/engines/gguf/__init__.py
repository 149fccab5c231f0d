"""GGUF files for llama.cpp, written by llama.cpp's own conversion and held to what transformers computes.

It serves nothing for others and knows no candidate; where weights come from is in `leastwise.models.weights`. Start at
`files.py` (a file converted, compared, kept) and `ahead.py` (before it is asked for), then `conversion.py`,
`comparison.py`; what can be said of a model before anything is spent is in `architectures.py`.
"""
