"""How a host computes its devices: executors behind one interface, which change how fast, not what.

`sequential` is the reference; `process` gives its results bit for bit; `cohort` computes students together, with other
roundings: a round from the same state gives soft labels that differ by less than a thousandth.
"""
