"""Train logs of this contest, in all their dialects.

:func:`read_logs` gives the runs of a record folder. A :class:`RunLog` knows its text, its settings and its metrics;
:attr:`RunLog.facts` is the log model, one :class:`RunFacts` per run, and :attr:`RunLog.steps` its training curve. The
dialects differ per submission, so readers go by the shape of a line, not by one script's labels. A line that no
reader knows is simply kept: :meth:`RunLog.find` sees it.
"""

from auditor.logs.lines import LogFile, LoggedValue
from auditor.logs.model import Fact, Gpu, Hessians, Metric, RunFacts, Size, Timer
from auditor.logs.run import RunLog, is_log, parse_log, read_logs
from auditor.logs.steps import StepLine

__all__ = [
    "Fact",
    "Gpu",
    "Hessians",
    "LogFile",
    "LoggedValue",
    "Metric",
    "RunFacts",
    "RunLog",
    "Size",
    "StepLine",
    "Timer",
    "is_log",
    "parse_log",
    "read_logs",
]
