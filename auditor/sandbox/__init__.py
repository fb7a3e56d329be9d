"""Runs other people's code where it can do no harm, and notes what it tried."""

from auditor.sandbox.bubblewrap import Sandbox, SandboxError, require
from auditor.sandbox.result import Attempt, End, Limits, SandboxResult, output_files

__all__ = ["Attempt", "End", "Limits", "Sandbox", "SandboxError", "SandboxResult", "output_files", "require"]
