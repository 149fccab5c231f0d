"""One request on its way to a model, in the form it is asked in: turns of a chat, a plain text to go on with, or labels
to decide among.

It meters, keeps and tries nothing again: `leastwise.endpoints.inference` does. Start reading at `forms.py`.
"""
