"""Native code is read as text: functions, assignments, derived values, and where they stand."""

from __future__ import annotations

import ast

from auditor.submission import Change, SubmissionFile
from auditor.unpack import Program
from auditor.unpack.native import NativeSource, native_files, native_string

SOURCE = """\
#include <math.h>
/* not code: int ghost(int a) { return a; } */
static double share(const double *nll, int64_t i, int n) {
    const char *s = "brace } in a string";
    double each = -nll[i] / (double)n, twice = each * 2;  // spread
    double other = 1.0;
    return twice + other;
}

struct Table {
    int *slots;
    void update(int key) const {
        if (slots[key] == 3) { slots[key] += 1; }
    }
};

int score(const uint16_t *tokens, const double *nll, long count, double *out) {
    for (long i = 1; i < count; i++) {
        out[i] = share(nll, i, 3);
        int same = tokens[i] == tokens[i - 1];
        out[i] *= same;
    }
    return 0;
}
"""


def _file(path: str, text: str) -> SubmissionFile:
    return SubmissionFile(path, len(text), Change.ADDED, text.encode)


def _source() -> NativeSource:
    (source,) = native_files([_file("records/x/helper.c", SOURCE), _file("records/x/train_gpt.py", "pass")])
    return source


def test_functions_and_parameters() -> None:
    functions = {f.name: f.parameters for f in _source().functions}
    assert functions == {
        "share": ("nll", "i", "n"),
        "update": ("key",),
        "score": ("tokens", "nll", "count", "out"),
    }


def test_assignments_have_names_values_and_lines() -> None:
    source = _source()
    share = next(f for f in source.functions if f.name == "share")
    found = {a.name: (a.value, source.line_of(a.offset)) for a in share.assignments}
    assert found["each"] == ("-nll[i] / (double)n", 5)
    assert found["twice"] == ("each * 2", 5)
    score = next(f for f in source.functions if f.name == "score")
    same = next(a for a in score.assignments if a.name == "same")
    assert same.value == "tokens[i] == tokens[i - 1]"
    assert source.snippet(same.offset) == "int same = tokens[i] == tokens[i - 1];"


def test_derived_follows_assignments_only() -> None:
    share = next(f for f in _source().functions if f.name == "share")
    assert share.derived({"nll"}) == {"nll", "each", "twice"}


def test_called_from_follows_calls() -> None:
    assert [f.name for f in _source().called_from({"score"})] == ["share", "score"]
    assert _source().called_from({"nothing"}) == []


def test_strings_in_python() -> None:
    text = 'x = 1\nCODE = r"""' + SOURCE + '"""\nPROSE = "a function {name} (of x) has no body"\n'
    program = Program("train_gpt.py", text, ast.parse(text), "shipped", (), None, None, False)
    constants = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    found = [s for n in constants if (s := native_string(program, n)) is not None]
    assert len(found) == 1
    share = next(f for f in found[0].functions if f.name == "share")
    assert found[0].line_of(share.offset) == 4  # the string starts on line 2, the function on its third


def test_rust_and_broken_text() -> None:
    (rust,) = native_files(
        [_file("a.rs", "fn nb(lens: &[u8], tid: usize) -> f64 {\n    let n = lens[tid];\n    n\n}\n")]
    )
    assert [(f.name, f.parameters) for f in rust.functions] == [("nb", ("lens", "tid"))]
    assert rust.functions[0].assignments[0].value == "lens[tid]"
    for text in ("int f(", "int f(int a) {", '"', "/*", "}}}}((("):
        for source in native_files([_file("a.c", text)]):
            assert all(f.assignments is not None for f in source.functions)
