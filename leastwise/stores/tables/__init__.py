"""Tables as files: any of the formats read alike, text as text, numbers as they were written.

Of tables too long for memory a part is drawn (`drawn_rows.py`). It knows nothing of use cases (see
`leastwise.rows.tables`). Start reading at `table_files.py`.
"""
