"""The run that produced the claimed number, as far as a record folder's files tell, without its code.

``RunEvidence.collect(folder)`` reads submission.json, the README, shell scripts and train logs once. Settings
are then asked by name; the code's own defaults are the caller's to add, as the weakest value.
"""

from auditor.logs import LogFile, LoggedValue, Metric, RunFacts, RunLog
from auditor.runconfig.claim import Claim, SeedClaim
from auditor.runconfig.declared import Declaration
from auditor.runconfig.evidence import Effective, ReportedLabel, RunEvidence
from auditor.runconfig.launches import LaunchCommand

__all__ = [
    "Claim",
    "Declaration",
    "Effective",
    "LaunchCommand",
    "LogFile",
    "LoggedValue",
    "Metric",
    "ReportedLabel",
    "RunEvidence",
    "RunFacts",
    "RunLog",
    "SeedClaim",
]
