"""Tasks that put what was promoted behind a URL. How requests are answered is in `leastwise.serving`.

They judge nothing and move no alias. Start reading at `serve.py`.
"""
