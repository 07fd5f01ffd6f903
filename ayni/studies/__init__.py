"""Controlled experiments on the paper's claims: arms, seeds, intervals, verdicts. `ayni study NAME` runs one.

A study is a file that defines `STUDY`; `catalogue.py` lists them all, `lab.py` makes models, `paired.py` compares arms.
"""
