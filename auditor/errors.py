"""Errors meant for people: one line that says what is wrong and what to do about it."""

from __future__ import annotations


class AuditorError(Exception):
    """A failure the user can act on. The command line prints it as one line and exits with code 2."""


class SourceError(AuditorError):
    """The submission could not be obtained: unknown PR, unreachable host, missing folder, bad address."""


class UsageError(AuditorError):
    """The command was given something it cannot use, such as an unknown rule."""
