"""A plain text that a model goes on with, over OpenAI's completions interface, and how likely it finds each label.

It meters, keeps and tries nothing again: `leastwise.endpoints.inference` does. Start reading at `asking.py`.
"""
