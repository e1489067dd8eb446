"""Faults made at random, for as long as asked: ``python -m tests.robustness``; a kind of attack a module."""
