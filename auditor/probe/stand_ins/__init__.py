"""Modules that submissions import and a CPU does not have. In the sandbox this folder comes first on the path.

Each notes its use (:mod:`auditor.probe.driver.used`) and gives what the real one gives, in plain PyTorch.
"""
