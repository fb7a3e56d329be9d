"""Probes: the submission's own model and evaluation, made tiny and run on a CPU in the sandbox, show what they do.

Nothing outside of this package imports it, but for the command line and what merges its results into a verdict.
Torch is imported by the driver alone, inside the sandbox.
"""
