"""Random programs: written as Python text, run on tracegraph and PyTorch, traced, replayed, saved.

`program.py` is what a program is, `writer.py` writes one from a source of choices, `check.py`
states what must hold of each, `bugs.py` plants faults to prove that the checks see them.
`python -m tests.fuzz --examples 20000` runs long.
"""
