"""What a candidate answers with, as files: copied into one folder when it is registered, named with their digests when
it was only measured, and found again where it is opened.

It answers nothing. Start at `contents.py` (what is in a bundle), then `packing.py`, then `opening.py`.
"""
