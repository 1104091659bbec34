"""Fuzz: schemathesis asks the served OpenAPI document for every request it allows and many it does not, of a real
service in a process of its own, and every answer must be one that the document describes.

`python -m fuzz` (tests/ on the path), or `make fuzz`. `hooks.py` runs inside schemathesis; the rest here.
"""
