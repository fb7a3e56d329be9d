"""Jobs that need no more than the submission itself."""

from __future__ import annotations

import sys

from auditor.probe.driver.context import Context, StopJob


def imports(context: Context) -> dict[str, object]:
    """Import the entry script. Gives its classes and functions."""
    module = context.module()
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == "__main__"}
    classes = sorted(name for name, value in own.items() if isinstance(value, type))
    functions = sorted(name for name, value in own.items() if callable(value) and not isinstance(value, type))
    return {"classes": classes, "functions": functions}


def main(context: Context) -> dict[str, object]:
    """Run the script's main flow to its end."""
    context.module()
    try:
        context.run_main()
    except SystemExit as end:
        if end.code:
            raise StopJob("exception", f"the script ended itself: {end.code}") from end
    sys.stdout.flush()
    return {}
