"""Plain rows made into a use case: cleaned, grouped, sized, split, described, and written with a draft of its YAML.

It reads no source (see `leastwise.rows.sources`), asks no model and changes nothing it was given. Start reading at
`prepared.py`; `splitting.py` is where rows come to lie on one side.
"""
