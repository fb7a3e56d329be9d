"""Programs that submissions call and that get a stand-in inside the sandbox: first on PATH, and told like any other."""

from __future__ import annotations

from pathlib import Path

_TELL = """#!/bin/sh
printf 'program\\t%s %s\\n' "${0##*/}" "$*" > /guard/told
"""

_STORES = """
# Stores the bytes as they are: what it writes, it can read back.
out= in= decode= where=
case "${0##*/}" in lrunzip|unlrzip|lrzcat) decode=1;; esac
while [ $# -gt 0 ]; do
  case "$1" in
    -o|--outfile) out=$2; shift;;
    -O|--outdir) where=$2; shift;;
    -L|-w|-m|-p|-N|-T|-S|--level|--window|--threads|--suffix) shift;;
    -d|--decompress) decode=1;;
    -*) ;;
    *) in=$1;;
  esac
  shift
done
[ -n "$in" ] || exec cat
if [ -z "$out" ]; then
  if [ -n "$decode" ]; then out=${in%.lrz}; else out=$in.lrz; fi
  [ -z "$where" ] || out=$where/${out##*/}
fi
exec cp -- "$in" "$out"
"""

_REAL = """
# The real one, which finds nothing in here that it could harm.
[ -x "/usr/bin/${0##*/}" ] && exec "/usr/bin/${0##*/}" "$@"
echo "${0##*/}: not available in the sandbox" >&2
exit 127
"""

_SAME = """
# The code as it is: from a file, else from standard input; to a file after -o, else to standard output.
out= in=
while [ $# -gt 0 ]; do
  case "$1" in
    -o|--output) out=$2; shift;;
    --*) ;;
    -) ;;
    *) in=$1;;
  esac
  shift
done
if [ -n "$out" ]; then exec > "$out"; fi
exec cat ${in:+"$in"}
"""

_SMI = """#!/bin/sh
echo "NVIDIA H100 80GB HBM3 (stand-in)"
"""

_PROGRAMS = {
    **dict.fromkeys(("lrzip", "lrunzip", "lrzcat"), _TELL + _STORES),
    **dict.fromkeys(("gcc", "cc", "g++", "c++", "clang", "clang++"), _TELL + _REAL),
    "pyminify": _TELL + _SAME,
    "nvidia-smi": _SMI,
}
SUBSTITUTED = {
    "lrzip": "a program lrzip that stores bytes as they are",
    "pyminify": "a program pyminify that leaves code as it is",
}
"""What the report says of those that don't do what the real ones do."""


def furnish(folder: Path) -> None:
    """Write the programs into ``folder``."""
    folder.mkdir(parents=True)
    for name, text in _PROGRAMS.items():
        program = folder / name
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
