"""Prefect tasks: what one stage or verb does, a file each, thin over the library.

They open what a run needs, once, hand it on, and show what came of it; they never decide a verdict or sequence stages.
Start reading at `climb.py`, then `prompt.py`.
"""
