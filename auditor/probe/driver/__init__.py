"""Runs inside the sandbox: ``python -m auditor.probe.driver JOB.json``. See :mod:`auditor.probe.driver.context`."""
