"""Asking a model over HTTP, one by one or in batches: metered, kept, and tried again where the network failed.

It starts no server, renders no prompt and never scores an answer. Start reading at `request.py`, then `inference.py`.
"""
