"""The rows of a use case: its file and its tables as they are read, made, masked, split and held to suites.

It changes no source and never scores an answer or asks a model. Start reading at `use_case_file.py` (the YAML),
`tables.py` (what rows there are) and `validation.py` (whether they are fit for use).
"""
