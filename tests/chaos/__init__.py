"""Chaos: a service under use while its processes are killed, its disk fills, its database goes and its clocks jump.

`python -m chaos --database sqlite --kills 500` (tests/ on the path), or `make chaos` for both databases. Afterwards
`check.py` holds what is left against what the clients were told.
"""
