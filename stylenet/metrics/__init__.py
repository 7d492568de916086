"""The metrics suite.

It has pure formulas, the networks behind some of them, the evaluation itself and its reports.
"""
