"""One record folder, read: its programs, its run, its trace, and the evaluation that produced the number.

This is all a rule gets. Everything is built once, on first use, and shared by all rules.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from auditor.index.adaptation import Relation, Rescoring, printed_scores, relations, rescorings
from auditor.index.imports import asks_for_lack, import_flags
from auditor.index.interpreter import Interpreter
from auditor.index.program_index import ProgramIndex, makes_tensor_leaf
from auditor.index.tables import Tables
from auditor.index.trace import CallFrame, Event, Guard, Kind, SkippedBranch, Trace
from auditor.index.values import HOLE
from auditor.index.window_parameters import WindowParameters, latent_parameters, window_parameters
from auditor.logs import RunLog, read_logs
from auditor.runconfig import ReportedLabel, RunEvidence
from auditor.runconfig.seeds import SeedRuns, seed_runs
from auditor.significance import Record
from auditor.submission import RecordFolder, Submission, SubmissionFile
from auditor.unpack import Program, read_program
from auditor.unpack.native import NativeFunction, NativeSource, native_files, native_string
from auditor.unpack.sentencepiece_model import SentencePieceModel, read_sentencepiece
from auditor.unpack.walk import walk
from auditor.verdict import (
    Evidence,
    Frame,
    ReportedMetric,
    RunConfig,
    Setting,
    SettingValue,
)

ENTRY_NAME = re.compile(r"^train_gpt[\w.-]*\.py$")
MAX_CANDIDATES = 4
_NON_RECORD = re.compile(r"(?i)(?<![a-z])non[-_ ]?record(?![a-z])")
_OWN_NON_RECORD = re.compile(
    r"""(?ix)
    (?: (?: ^ | [.!?:|]\s ) [^\w\n]* non[-_ ]?record (?: [^\w\n]*$ | [*_]*[^\w\s\#] |
        \s+ (?: [\w-]+ \s+ )? (?: submission | entry | run | experiment | result | attempt )\b
        (?! [\s(]*(?:PR\s*)?\# ) )
      | \bthis \s+ (?: is | was | run | submission | entry | PR | result | folder )\b
        (?: (?! \b (?: on | from | earlier | prior | previous | our | unlike | than | no | never ) \b
                | \bnot\s+an?\s+[*_]*non ) [^.\n] ){0,60}?
        (?<![a-z]) non[-_ ]?record (?![a-z]) )
    """
)
"""A sentence by which a text calls its own submission a non-record one."""
_CLAIMS_NOTHING = re.compile(
    r"""(?ix)
    \bthis \s+ (?: (?: run | submission | entry | PR | result | folder ) \s+ )? (?: is | was )\b [^.\n]{0,60}?
    \b not \b [\s*_]* (?: (?: an? | intended | meant | offered | submitted | as | for | the ) \s+ ){0,4}
    [*_]* (?: competitive | record | leaderboard ) (?: -\w+ )? [*_]* \s+ (?: \w+ \s+ )?
    [*_]* (?: entry | submission | claim | attempt | bid ) \b
    """
)
"""A sentence by which a text says of itself that no record is claimed, in other words."""
MAX_SWITCHES = 3


class LaunchedConfiguration:
    """Answers the interpreter's questions from the run's files (launch command < submission.json < log)."""

    def __init__(self, run: RunEvidence) -> None:
        self.run = run
        self.asked: dict[str, str | None] = {}

    def environment(self, name: str) -> str | None:
        return self._value(name, env=name)

    def flag(self, name: str) -> str | None:
        return self._value(f"--{name}", flag=name)

    def world_size(self) -> int | None:
        return self._world_size

    @cached_property
    def _world_size(self) -> int | None:
        for run in self.run.claim_runs:
            told = run.facts.world_size
            if told is not None and 0 < told.value <= 64:
                return told.value
        return None

    def logged(self, attribute: str) -> str | None:
        key = f".{attribute}"
        if key not in self.asked:
            found = self.run.setting(attribute=attribute)
            logs = [v for v in found if v.origin == "log"]
            self.asked[key] = self.run.effective(attribute=attribute).value if logs else None
        return self.asked[key]

    def _value(self, key: str, **names: str) -> str | None:
        if key not in self.asked:
            effective = self.run.effective(**names)
            undecided = effective.conflict is not None and effective.values[-1].origin != "log"
            self.asked[key] = HOLE if undecided else effective.value
        return self.asked[key]


@dataclass(frozen=True)
class ReportedEvaluation:
    """The metric event in the code that the claimed number came from, and the scores that feed it."""

    metric: Event | None
    scores: tuple[Event, ...]
    log: ReportedLabel | None
    how: str
    in_log: bool = False
    """The metric event prints the very log line that was read."""

    @property
    def function(self) -> CallFrame | None:
        """The evaluation function: the call whose accumulator the first score went to."""
        for score in self.scores:
            for frame in score.frames:
                if frame.id == score.frame:
                    return frame
        return None

    def first_score(self) -> Event | None:
        return self.scores[0] if self.scores else None


class Reading:
    """One record folder, ready to be judged."""

    def __init__(self, submission: Submission, folder: RecordFolder, baseline: Record | None = None) -> None:
        self.submission = submission
        self.folder = folder
        self.baseline = baseline
        """What a record's gain is to be measured against, if a person said so."""
        self.notes: list[str] = []
        self._walks: list[Interpreter] = []

    # -- what was shipped --------------------------------------------------------------------------------

    @cached_property
    def run(self) -> RunEvidence:
        """Launch commands, logs and claim."""
        return RunEvidence.collect(self.folder)

    @cached_property
    def claims_no_record(self) -> bool:
        """Whether submission.json or README calls the submission a non-record one.

        README's first lines say so by the word alone; elsewhere it takes a sentence about the submission itself,
        since others' non-record work is cited there.
        """
        raw = self.run.claim.raw
        if any(raw.get(k) is True for k in raw if _NON_RECORD.search(k)):
            return True
        if any(raw.get(k) is False for k in ("record", "is_record", "record_claim", "claims_record")):
            return True
        told = " ".join(str(raw.get(k, "")) for k in ("track", "category", "type", "submission_type", "status"))
        prose = [piece.text for d in self.run.documents[:1] for piece in d.prose[:400]]
        if _NON_RECORD.search(told) or any(_NON_RECORD.search(text) for text in prose[:6]):
            return True
        said = [str(raw.get(k, "")) for k in ("name", "title", "blurb", "description", "notes", "note")]
        return any(
            (_NON_RECORD.search(text) and _OWN_NON_RECORD.search(text)) or _CLAIMS_NOTHING.search(text)
            for text in (*said, *prose)
        )

    @cached_property
    def seed_runs(self) -> SeedRuns:
        """The seed runs behind the claim, as the logs show them."""
        return seed_runs(self.run)

    @cached_property
    def runs_elsewhere(self) -> tuple[RunLog, ...]:
        """Runs logged in another folder of the pull request, beside a script that is byte for byte the entry script."""
        entry = self.entry
        shipped = None if entry is None else next((f for f in self.folder.files if f.path == entry.program.file), None)
        if shipped is None:
            return ()
        own = {f.path for f in self.folder.files}
        others = [f for f in self.submission.files if f.change != "deleted" and f.path not in own]
        same = [f for f in others if f.size == shipped.size and f.name.endswith(".py") and f.data == shipped.data]
        beside = {f.path.rpartition("/")[0] for f in same}
        files = tuple(f for f in others if f.path.rpartition("/")[0] in beside)
        return read_logs(RecordFolder(self.folder.path, self.folder.track, files))[0] if files else ()

    @cached_property
    def _siblings(self) -> dict[str, SubmissionFile]:
        prefix = len(self.folder.path) + 1 if self.folder.path not in ("", ".") else 0
        return {f.path[prefix:]: f for f in self.folder.files if f.change != "deleted"}

    @cached_property
    def python_files(self) -> dict[str, SubmissionFile]:
        """Python files by path relative to the folder."""
        return {path: f for path, f in self._siblings.items() if path.endswith(".py")}

    def index(self, relative: str) -> ProgramIndex | None:
        """The index of one Python file of the folder, unpacked if need be; None if there is no such file."""
        cache: dict[str, ProgramIndex] = self.__dict__.setdefault("_indexes", {})
        if relative not in cache:
            file = self.python_files.get(relative)
            if file is None:
                return None
            cache[relative] = ProgramIndex(read_program(file, self._siblings), self.native_files)
        return cache[relative]

    def bundled(self, name: str) -> ProgramIndex | None:
        """The module of this import name that a packed script read so far carries inside, if any."""
        cache: dict[int, ProgramIndex] = self.__dict__.setdefault("_bundled", {})
        for index in self.opened():
            for program in index.program.bundled:
                if program.name and program.name.removesuffix(".py").replace("/", ".") == name:
                    if id(program) not in cache:
                        cache[id(program)] = ProgramIndex(program)
                    return cache[id(program)]
        return None

    def opened(self) -> list[ProgramIndex]:
        """The programs that were read: the entry script and what it imports."""
        return [i for i in self.__dict__.get("_indexes", {}).values() if i is not None]

    def lacks_import(self, event: Event) -> bool:
        """Whether an event comes about only where an optional import failed: ``if brotli is None: install()``."""
        return any(
            asks_for_lack(guard.node, self._import_flags(guard.program), negated=guard.negated)
            for guard in event.guards
        )

    def _import_flags(self, program: Program) -> frozenset[str]:
        cache: dict[int, frozenset[str]] = self.__dict__.setdefault("_flags_of_imports", {})
        if id(program) not in cache:
            cache[id(program)] = import_flags(program.tree) if program.tree is not None else frozenset()
        return cache[id(program)]

    @cached_property
    def native_files(self) -> tuple[NativeSource, ...]:
        """The folder's native source files."""
        return tuple(native_files(self._siblings.values()))

    @cached_property
    def native(self) -> tuple[NativeSource, ...]:
        """Native code that the folder holds: source files, and strings in the programs that were read."""
        found = list(self.native_files)
        _ = self.entry
        for index in self.opened():
            found += [n for node in index.texts if (n := native_string(index.program, node)) is not None]
        return tuple(found)

    def native_called(self) -> list[tuple[NativeSource, NativeFunction]]:
        """Native functions that the Python code which runs calls by name, and those that they call.

        The names are those that functions of the trace mention, and the functions that these name in turn.
        """
        if not self.native:
            return []
        names = self._names_reached
        return [(source, f) for source in self.native for f in source.called_from(names)]

    @cached_property
    def _names_reached(self) -> frozenset[str]:
        found: set[str] = set()
        for index in self.opened():
            todo = [f for i, f in index.functions.items() if i in self.trace.called]
            seen = {id(f) for f in todo}
            while todo:
                facts = todo.pop()
                found |= facts.names
                found.update(s for s in facts.strings if s.isidentifier())
                for name in facts.names & index.by_name.keys():
                    more = [f for f in index.by_name[name] if id(f) not in seen]
                    seen.update(id(f) for f in more)
                    todo += more
            if index.program.tree is not None:
                for statement in index.program.tree.body:
                    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                        found.update(n.attr for n in walk(statement) if isinstance(n, ast.Attribute))
        return frozenset(found)

    @cached_property
    def tokenizers(self) -> tuple[tuple[str, SentencePieceModel], ...]:
        """The SentencePiece models that the folder holds, by path; read when first asked for."""
        files = [f for path, f in self._siblings.items() if path.endswith(".model")][:4]
        found = ((f.path, read_sentencepiece(f.data)) for f in files)
        return tuple((path, model) for path, model in found if model is not None)

    @cached_property
    def entry_candidates(self) -> list[str]:
        """Scripts that may be the one that was run, best first."""
        found: list[str] = []
        for launch in self.run.claimed_launches:
            if launch.script:
                name = launch.script.split("/")[-1]
                found += [p for p in self.python_files if p == launch.script.lstrip("./")]
                found += [p for p in self.python_files if p == name or p.split("/")[-1] == name]
        scripts = sorted(self.python_files, key=lambda p: (p.count("/"), -self.python_files[p].size))
        found += [p for p in scripts if p.split("/")[-1] == "train_gpt.py"]
        found += [p for p in scripts if ENTRY_NAME.match(p.split("/")[-1])]
        found += [p for p in scripts if re.search(r"train|main|run", p.split("/")[-1])]
        found += scripts
        return list(dict.fromkeys(found))[:MAX_CANDIDATES]

    # -- what it does ------------------------------------------------------------------------------------

    @cached_property
    def _chosen(self) -> tuple[str | None, Trace, ReportedEvaluation]:
        """The entry script: the first candidate whose code prints the line the claim was read from."""
        best: tuple[int, str, Trace, ReportedEvaluation] | None = None
        for relative in self.entry_candidates:
            trace = self._trace(relative)
            forced = self._decided_by_logs(trace)
            if forced:
                trace = self._trace(relative, forced=forced)
            reported = self._reported_in(trace)
            rank = 2 if reported.in_log else 1 if reported.scores else 0
            if best is None or rank > best[0]:
                best = (rank, relative, trace, reported)
            if rank == 2 or (rank == 1 and self.run.reported() is None):
                break
        if best is None:
            return (
                None,
                Trace(),
                ReportedEvaluation(None, (), self.run.reported(), "there is no Python script"),
            )
        return best[1:]

    def _decided_by_logs(self, trace: Trace) -> dict[int, bool | None]:
        """Branches that the configuration switches off, but whose own messages stand in the claim's logs.

        A setting that neither the launch command nor a dump names may still have been set; what only that
        branch prints proves it.
        """
        if not self.run.claim_runs:
            return {}
        printed = {e.text for e in trace.events if e.kind in (Kind.MESSAGE, Kind.METRIC) and e.text}
        forced: dict[int, bool | None] = {}
        seen: set[int] = set()
        matters = False
        for branch in trace.skipped:
            if id(branch.node) in seen or not isinstance(branch.node, ast.If):
                continue
            seen.add(id(branch.node))
            texts = [t for t in printed_in(branch.body) if _pattern(t) is not None]
            own = [t for t in texts if not any(re.search(_pattern(t) or "", p.replace(HOLE, "")) for p in printed)]
            # Everything the branch prints must be there: a line of a hyperparameter dump can look like one message.
            if own and all(self._in_logs(t) for t in texts):
                # Training and evaluation may be two processes with a log each: then both sides ran.
                taken = [
                    e.text
                    for e in trace.events
                    if e.kind is Kind.MESSAGE and any(g.node is branch.node.test for g in e.guards)
                ]
                # In a loop the branch was taken in some round, such as the last; the other rounds went on.
                both = branch.repeated or any(self._in_logs(t) for t in taken if t)
                forced[id(branch.node)] = None if both else branch.body == tuple(branch.node.body)
                matters = matters or any(not _only_tells(s) for s in (*branch.node.body, *branch.node.orelse))
        # Walking the script once more is worth it only for branches that do something that a rule could ask about.
        return forced if matters else {}

    def _shown(self, entry: ProgramIndex) -> Callable[[Sequence[ast.stmt]], bool]:
        """Whether the claim's logs hold all that a branch prints, and something of it that nothing else prints."""
        known: dict[int, bool] = {}
        tree = entry.program.tree

        def shown(body: Sequence[ast.stmt]) -> bool:
            place = id(body[0])
            if place not in known:
                texts = [t for t in printed_in(body) if _pattern(t) is not None]
                known[place] = bool(texts) and all(self._in_logs(t) for t in texts) and self._own(texts, tree)
            return known[place]

        return shown if self.run.claim_runs else lambda body: False

    def _own(self, texts: list[str], tree: ast.Module | None) -> bool:
        """Whether one of these texts is like no other that the script prints."""
        everywhere: dict[int, list[str]] = self.__dict__.setdefault("_printed", {})
        if id(tree) not in everywhere:
            everywhere[id(tree)] = printed_in([tree]) if tree is not None else []
        others = Counter(everywhere[id(tree)]) - Counter(texts)
        # No pattern reaches across this separator: ".*?" stops at the end of a line, white space at the mark.
        rest = "\n\x01\n".join(other.replace(HOLE, "") for other in others)
        return any(re.search(_pattern(t) or "", rest) is None for t in texts)

    def _in_logs(self, text: str) -> bool:
        return len(max(text.split(HOLE), key=len).strip()) >= 8 and bool(self.log_lines_like(text))

    @cached_property
    def _configuration(self) -> LaunchedConfiguration:
        return LaunchedConfiguration(self.run)

    def _trace(self, relative: str, *, forced: dict[int, bool | None] | None = None) -> Trace:
        entry = self.index(relative)
        if entry is None or entry.program.tree is None:
            return Trace()
        siblings = _Siblings(self, relative)
        interpreter = Interpreter(entry, siblings, self._configuration, forced=forced, shown=self._shown(entry))
        self._walks.append(interpreter)
        return interpreter.run()

    def close(self) -> None:
        """Let go of all that was read. Trees and values hold each other and would live until cycles are collected."""
        for interpreter in self._walks:
            interpreter.release()
            vars(interpreter).clear()
        vars(self).clear()

    @property
    def entry_file(self) -> str | None:
        """The entry script's path relative to the folder; what it runs may stand in another file."""
        return self._chosen[0]

    @property
    def entry(self) -> ProgramIndex | None:
        """The index of the entry script."""
        return self.index(self._chosen[0]) if self._chosen[0] is not None else None

    @property
    def trace(self) -> Trace:
        """What happens under the effective configuration."""
        return self._chosen[1]

    @cached_property
    def tables(self) -> Tables:
        """The count tables that the reported figure depends on, and how they are read."""
        reported = self.reported
        starts = [*reported.scores[:8], *([reported.metric] if reported.metric is not None else [])]
        return Tables(self.trace, self.opened(), starts)

    def switched_off(
        self,
        names: Collection[str] = (),
        holds: Callable[[ast.AST], bool] | None = None,
        *,
        inside: Collection[ast.AST | None] | None = None,
    ) -> Trace | None:
        """What would happen in the branches of interest that the configuration leaves out; None without one.

        A branch is of interest if it names one of ``names`` or holds a node of the kind. ``inside`` limits the
        question to branches of these functions. Their events follow those of :attr:`trace`; what only they show is
        latent.
        """
        trace = self.trace
        visited: set[tuple[int, int, bool]] = set()
        holds_it: dict[int, bool] = {}
        wanted = frozenset(names)
        found: list[Event] = []
        todo = list(trace.skipped)
        # What one setting switches on, another may still leave out; deeper than that is nobody's latent code.
        for _ in range(MAX_SWITCHES):
            further: list[SkippedBranch] = []
            for branch in todo:
                # Another forward pass may attend differently; otherwise the last visit to a branch is like the first.
                place = (id(branch.node), branch.resume.forward_pass if branch.resume else 0, branch.negated)
                if place in visited or (inside is not None and branch.frames[-1].definition not in inside):
                    continue
                for statement in branch.body:
                    if id(statement) not in holds_it:
                        holds_it[id(statement)] = not wanted.isdisjoint(self._named(statement)) or (
                            holds is not None and any(map(holds, walk(statement)))
                        )
                if any(holds_it[id(statement)] for statement in branch.body):
                    visited.add(place)
                    visit = self._visit(branch)
                    found += visit.events
                    further += visit.skipped
            todo = further
        return replace(trace, events=[*trace.events, *found]) if visited else None

    def _named(self, statement: ast.stmt) -> frozenset[str]:
        """Names and attributes below a statement; asked for by one rule after the other."""
        cache: dict[int, frozenset[str]] = self.__dict__.setdefault("_named_in", {})
        if id(statement) not in cache:
            names: set[str] = set()
            for node in walk(statement):
                if node.__class__ is ast.Name:
                    names.add(node.id)
                elif node.__class__ is ast.Attribute:
                    names.add(node.attr)
            cache[id(statement)] = frozenset(names)
        return cache[id(statement)]

    def _visit(self, branch: SkippedBranch) -> Trace:
        cache: dict[int, Trace] = self.__dict__.setdefault("_visits", {})
        if id(branch) not in cache:
            interpreter = next(w for w in self._walks if w.trace is self.trace)
            cache[id(branch)] = interpreter.visit(branch)
        return cache[id(branch)]

    def evaluation_path(self) -> list[ast.AST | None]:
        """The functions that take part in the reported evaluation, and those that read token files."""
        path: list[ast.AST | None] = []
        for score in self.reported.scores:
            path += [f.definition for f in score.own_frames]
        for index in self.opened():
            path += index.file_readers
        return path

    def training_names(self) -> set[str]:
        """Names by which functions that run a backward pass are called."""
        return {"backward"}.union(*(index.training_names for index in self.opened()))

    @property
    def reported(self) -> ReportedEvaluation:
        """The evaluation behind the claimed number."""
        return self._chosen[2]

    @cached_property
    def window_parameters(self) -> list[WindowParameters]:
        """Throw-away parameters optimised inside the reported evaluation."""
        return window_parameters(self.trace, self.reported.scores)

    @cached_property
    def other_window_parameters(self) -> list[WindowParameters]:
        """The same inside every other evaluation that runs and prints its result."""
        reported = {s.seq for s in self.reported.scores}
        return window_parameters(self.trace, [s for s in printed_scores(self.trace) if s.seq not in reported])

    @cached_property
    def latent_window_parameters(self) -> list[WindowParameters]:
        """The same in code that this run switches off."""
        indexes = self.opened()
        if not self.trace.leaves and not any(index.leaf_makers for index in indexes):
            return []
        names = frozenset[str]().union(*(index.leaf_names for index in indexes))
        if self.trace.leaves:
            names |= {"backward"}  # made, but not optimised: no steps
        trace = self.switched_off(names, makes_tensor_leaf)
        return latent_parameters(trace, len(self.trace.events)) if trace is not None else []

    @cached_property
    def relations(self) -> list[Relation]:
        """How each step on validation tokens stands to each score behind the reported number."""
        return relations(self.trace, self.reported.scores)

    @cached_property
    def rescorings(self) -> list[Rescoring]:
        """Scores behind the reported number that use a state built from validation tokens in a pass that is over."""
        return rescorings(self.trace, self.reported.scores, self.reported.metric)

    def foreign_texts(self) -> str | None:
        """The public data set that the reported evaluation scores instead of validation shards, or None."""
        scores = self.reported.scores
        if not scores or any("val" in s.roles for s in scores):
            return None
        opened = [e.text for e in self.trace.of(Kind.DATA) if e.seq < scores[-1].seq and e.text]
        return opened[-1] if opened else None

    def unreadable(self) -> str | None:
        """Why nothing can be said about the code, or None."""
        if not self.python_files:
            return "the folder holds no Python file"
        entry = self.entry
        if entry is None:
            return "no entry script was found"
        if entry.program.problem is not None:
            return f"{entry.program.file}: {entry.program.detail or entry.program.problem}"
        handed = self.trace.of(Kind.DELEGATE)
        if handed and not self.trace.of(Kind.STEP) and not self.trace.of(Kind.SCORE):
            return f"the script hands over to {handed[0].text}, which the submission does not hold"
        return None

    def _reported_in(self, trace: Trace) -> ReportedEvaluation:
        label = self.run.reported()
        scores = {e.seq: e for e in trace.events if e.kind is Kind.SCORE}
        metrics = trace.of(Kind.METRIC)
        scored = [m for m in metrics if any(r.startswith("score:") for r in m.roles)]
        if label is not None:
            lines = [label.text, *(a.text for a in label.alternatives)]
            for text in lines:
                matching = [m for m in metrics if m.text and prints(m.text, text)]
                if len({_score_roles(m) for m in matching}) > 1:
                    # Several evaluations print under one label: the log tells which by what they print besides.
                    matching = [m for m in matching if self._came_with_its_neighbours(trace, m)] or matching
                chosen = _last_scored(matching) or _outermost(matching)
                if chosen is not None:
                    how = "the code prints the log line that carries the claimed number"
                    if not label.linked:
                        how = f"the code prints the last result's log line ({label.how})"
                    feeding = _feeding(chosen, scores) or _scored_before(trace, chosen)
                    if feeding and not any(r.startswith("score:") for r in chosen.roles):
                        how += "; the figure passes through a call that can't be followed (native code)"
                    return ReportedEvaluation(chosen, feeding, label, how, in_log=True)
        outside = [m for m in scored if not m.loops] or scored
        if outside:
            why = "no log" if label is None else "no printed text in the code matches the log's last result"
            # Where the claim is an earlier line of the log, of a loop, the evaluations that came after it are there:
            # one that the run did not get to made no number.
            shown = [m for m in outside if label is not None and self._logged_after(m, label)]
            outside = shown or outside
            how = f"{why}; taken as the last evaluation that the {'log shows' if shown else 'script prints'}"
            return ReportedEvaluation(outside[-1], _feeding(outside[-1], scores), label, how)
        return ReportedEvaluation(None, (), label, "no evaluation that prints a result was found in the code")

    def _came_with_its_neighbours(self, trace: Trace, metric: Event) -> bool:
        """Whether all that is printed of the same scores, in the same branch, stands in the claim's logs."""
        ours = _score_roles(metric)
        for other in trace.of(Kind.METRIC):
            same = _score_roles(other) == ours and not other.loops and not other.undecided
            if same and other.text and _pattern(other.text) is not None and not self.log_lines_like(other.text):
                return False
        return True

    def _logged_after(self, metric: Event, label: ReportedLabel) -> bool:
        """Whether a line that this print can have made follows the claim's in its log."""
        hits = self.log_lines_like(metric.text) if metric.text else []
        return any(file == label.file and line > label.line for file, line, _ in hits)

    # -- did it run? -------------------------------------------------------------------------------------

    def log_lines_like(self, text: str) -> list[tuple[str, int, str]]:
        """Lines of the claim's logs that a print of the partly known ``text`` can have produced."""
        cache: dict[str, list[tuple[str, int, str]]] = self.__dict__.setdefault("_lines_like", {})
        if text not in cache:
            pattern = _pattern(text)
            # The longest known piece is looked up first: a plain text is found much faster than a pattern.
            literal = max(re.split(rf"[\s{HOLE}]+", _longest_line(text)), key=len)
            hits = self.run.find(literal) if pattern is not None else []
            cache[text] = [
                hit for hit in hits if pattern is not None and re.search(pattern, hit[2]) and not _is_source(hit[2])
            ]
        return cache[text]

    def log_place(self, pattern: str, *, words: Collection[str] = ()) -> tuple[str, int, str] | None:
        """The first line of the claim's logs that matches; ``words`` as in :meth:`LogFile.find`."""
        found = self.run.find(re.compile(pattern), words=words)
        return found[0] if found else None

    @cached_property
    def log_is_whole(self) -> bool:
        """Whether the claim's logs hold most of what the script always prints.

        Only then does a missing line mean that its code did not run.
        """
        if not self.run.claim_runs or self.reported.metric is None:
            return False
        if self.reported.log is None or not self.reported.in_log:
            return False
        always = {
            e.text
            for e in self.trace.events
            if e.kind in (Kind.MESSAGE, Kind.METRIC) and e.text and not e.undecided and _pattern(e.text)
        }
        texts = sorted(t for t in always if t is not None)[:40]
        if len(texts) < 4:
            return False
        hits = sum(1 for t in texts if self.log_lines_like(t))
        return hits * 10 >= len(texts) * 6

    @cached_property
    def result_not_logged(self) -> bool:
        """Whether the claim's logs come from this script but end without the result that it prints last.

        Then the claimed number comes from another run, or from another evaluation, than the one that was found.
        """
        metric, label = self.reported.metric, self.reported.log
        if not self.run.claim_runs or metric is None or label is not None or self.run.claim.val_bpb is None:
            return False
        if _pattern(metric.text or "") is None or self.log_lines_like(metric.text or ""):
            return False
        before = [
            e.text
            for e in self.trace.events
            if e.kind in (Kind.MESSAGE, Kind.METRIC) and e.text and e.seq < metric.seq and not e.undecided
        ]
        return sum(1 for t in dict.fromkeys(before) if _pattern(t) is not None and self.log_lines_like(t)) >= 4

    def ran(self, event: Event) -> tuple[bool | None, Evidence | None]:
        """Whether the logs show that ``event`` happened: by the texts its function always prints around it."""
        for depth in range(len(event.frames), 0, -1):
            frame = event.frames[depth - 1]
            near = self._messages_in(frame.id)
            if frame.definition is None or depth <= 2:
                near = [m for m in near if m.guards and _same_branch(m, event)]
            else:
                near = [m for m in near if _implied(m, event)]
            told = [m for m in near if _pattern(m.text or "") is not None]
            if not told:
                continue
            if self._silent_branch(told, event):
                return False, None
            for message in told:
                lines = self.log_lines_like(message.text or "")
                if not lines:
                    continue
                if set(_undecided(event)) <= set(_guards(message)) and not event.fallible:
                    return True, self.log_evidence(*lines[0], role="the log shows that this ran")
                return None, None
            # Its own lines are missing; those of the branch that leads to it may be there all the same.
            if not self.log_is_whole or self._announced(event, depth - 1):
                return None, None
            return False, None
        return None, None

    def _silent_branch(self, told: list[Event], event: Event) -> bool:
        """Whether the logs hold what a function prints, but nothing of what the very branch of the event always prints.

        A log of an earlier version of the script looks like that: the function ran, this branch of it did not. Only of
        a branch that the configuration decides: another may be taken by processes that do not log.
        """
        within = [m for m in told if m.guards and _same_branch(m, event)]
        depth = max((len(m.guards) for m in within), default=0)
        own = [m for m in within if len(m.guards) == depth]
        if not own or any(m.undecided or self.log_lines_like(m.text or "") for m in own):
            return False
        around = {_channel(m) for m in told if len(m.guards) < depth and self.log_lines_like(m.text or "")}
        return all(_channel(m) in around for m in own) and self.log_is_whole

    def _announced(self, event: Event, depth: int) -> bool:
        """Whether the logs hold what callers print in the very branch that leads to the event."""
        return any(
            m.guards and _same_branch(m, event) and _pattern(m.text or "") and self.log_lines_like(m.text or "")
            for frame in event.frames[:depth]
            for m in self._messages_in(frame.id)
        )

    def failed(self, event: Event) -> bool:
        """Whether the logs hold what is printed where a failure of this call is caught."""
        for i, frame in enumerate(event.frames):
            call = event.frames[i + 1].call if i + 1 < len(event.frames) else event.node
            line = getattr(call, "lineno", 0)
            for message in self._messages_in(frame.id):
                caught = any("<exception>" in g.settings for g in message.guards)
                near = 0 < getattr(message.node, "lineno", 0) - line <= 20
                if caught and near and self.log_lines_like(message.text or ""):
                    return True
        return False

    def _messages_in(self, frame: int) -> list[Event]:
        return [
            e
            for e in self.trace.events
            if e.kind in (Kind.MESSAGE, Kind.METRIC) and e.frames and e.frames[-1].id == frame
        ]

    # -- evidence ----------------------------------------------------------------------------------------

    def evidence(self, program: Program, node: ast.AST, role: str) -> Evidence:
        """A place in the code."""
        line = getattr(node, "lineno", 1)
        column = getattr(node, "col_offset", 0) + 1
        shipped_line = shipped_column = None
        if program.view == "unpacked":
            shipped_line, shipped_column = program.locate(line, column)
        return Evidence(
            file=program.file,
            line=max(line, 1),
            column=max(column, 1),
            snippet=program.snippet(line, column),
            role=role,
            view=program.view,
            shipped_line=shipped_line,
            shipped_column=shipped_column,
        )

    def at(self, event: Event, role: str) -> Evidence:
        """The place of an event."""
        return self.evidence(event.program, event.node, role)

    def native_evidence(self, source: NativeSource, offset: int, role: str) -> Evidence:
        """A place in native code: of the file, or of the Python program that holds it as a string."""
        line = source.line_of(offset)
        view = source.program.view if source.program is not None else "shipped"
        shipped = source.program.locate(line, 1) if source.program is not None and view == "unpacked" else None
        return Evidence(
            file=source.file,
            line=line,
            column=1,
            snippet=source.snippet(offset),
            role=f"{role} ({source.language}, read as text)",
            view=view,
            shipped_line=shipped[0] if shipped else None,
            shipped_column=shipped[1] if shipped else None,
        )

    def log_evidence(self, file: str, line: int, text: str, role: str) -> Evidence:
        """A line of a log or document."""
        return Evidence(file=file, line=max(line, 1), column=1, snippet=text.strip()[:200], role=role)

    def setting_evidence(self, names: Iterable[str]) -> tuple[Evidence, ...]:
        """Where the values of these settings were read: the code's default and the strongest source beside it."""
        found: list[Evidence] = []
        for name in sorted(names):
            default = self.trace.defaults.get(name)
            if default is not None:
                program, node, value = default
                found.append(self.evidence(program, node, f"setting {name}, {value!r} by default"))
            values = [v for v in self.values_of(name) if v.origin != "code default"]
            if values:
                best = values[-1]
                line = self.line_text(best.file, best.line)
                if line and best.value in line:
                    role = f"setting {name}, from the {best.origin}"
                else:
                    line, role = f"{name} = {best.value}", f"setting {name}, as read from the {best.origin}"
                found.append(self.log_evidence(best.file, best.line, line, role))
        return tuple(found[:8])

    def line_text(self, path: str, line: int) -> str | None:
        """One line of a file of the folder; None where there is none or it is too long to quote."""
        cache: dict[str, list[str]] = self.__dict__.setdefault("_lines", {})
        if path not in cache:
            file = next((f for f in self.folder.files if f.path == path), None)
            small = file is not None and file.size <= 8 * 1024 * 1024
            cache[path] = file.text.replace("\r\n", "\n").split("\n") if file is not None and small else []
        lines = cache[path]
        text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        return text if 0 < len(text) <= 400 else None

    def values_of(self, name: str) -> tuple[SettingValue, ...]:
        """Every value seen for a setting, weakest first (the code's default), whichever way it is named."""
        if name.startswith("--"):
            told = self.run.setting(flag=name[2:])
        else:
            told = self.run.setting(env=name, attribute=self.trace.aliases.get(name, name))
        default = self.trace.defaults.get(name)
        if default is None:
            return told
        program, node, value = default
        line = max(getattr(node, "lineno", 1), 1)
        if program.view == "unpacked":
            line = program.locate(line, 1)[0]
        return (SettingValue(value=value, origin="code default", file=program.file, line=line), *told)

    def call_path(self, event: Event) -> tuple[Frame, ...]:
        """The calls from the entry point to an event."""
        path: list[Frame] = []
        for frame in event.frames:
            program = frame.caller or frame.program
            line = getattr(frame.call, "lineno", 1) if frame.call is not None else 1
            path.append(Frame(function=frame.function, file=program.file, line=max(line, 1)))
        return tuple(path)

    def guard_evidence(self, guards: Sequence[Guard], role: str) -> tuple[Evidence, ...]:
        """The conditions on the path."""
        return tuple(self.evidence(g.program, g.node, role) for g in guards[-3:])

    # -- for the verdict ---------------------------------------------------------------------------------

    def run_config(self, settings: Iterable[str]) -> RunConfig:
        """The run as read: script, phases, reported metric, and the settings that outcomes rest on."""
        entry = self.entry
        reported = self.reported
        label = reported.log
        function = reported.function
        definition = function.definition if function is not None else None
        shown: list[Setting] = []
        for name in sorted(set(settings)):
            values = self.values_of(name)
            if not values:
                continue
            attribute = self.trace.aliases.get(name, name)
            names = {"flag": name[2:]} if name.startswith("--") else {"env": name, "attribute": attribute}
            effective = self.run.effective(**names)
            in_force = effective.value
            if in_force is None and effective.conflict is None:
                in_force = values[-1].value
            shown.append(Setting(name=name, value=in_force, values=values, conflict=effective.conflict))
        return RunConfig(
            script=entry.program.file if entry is not None else None,
            entry_point=self._entry_point(),
            phases=self._phases(),
            reported=ReportedMetric(
                label=label.label if label is not None else None,
                value=label.value if label is not None else None,
                log_file=label.file if label is not None else None,
                log_line=label.line if label is not None else None,
                evaluation=function.function if function is not None else None,
                file=function.program.file if function is not None else None,
                line=getattr(definition, "lineno", None) if definition is not None else None,
                how=reported.how,
            ),
            settings=tuple(shown),
            launch_commands=tuple(launch.text[:400] for launch in self.run.claimed_launches[:4]),
            logs=tuple(dict.fromkeys(r.file for r in self.run.claim_runs)),
            notes=(*self.run.notes[:8], *self._entry_notes()),
        )

    def _entry_notes(self) -> tuple[str, ...]:
        notes = []
        entry = self.entry
        if entry is not None:
            if entry.program.layers:
                notes.append(f"{entry.program.file} was unpacked: {' <- '.join(entry.program.layers)}")
            if entry.program.rewritten:
                notes.append(f"{entry.program.file} uses newer syntax and was rewritten for reading")
        foreign = self.foreign_texts()
        if foreign is not None:
            notes.append(
                f"the texts evaluated come from the data set {foreign}, not from the challenge's validation shards"
            )
        claim = self.run.claim
        if claim.val_bpb is None and not claim.seed_values():
            notes.append("no score is claimed: submission.json gives no bits per byte")
        if self.trace.truncated:
            notes.append(f"the trace is incomplete: {self.trace.truncated}")
        return tuple(notes)

    def _entry_point(self) -> str | None:
        for event in self.trace.events:
            if len(event.frames) > 1:
                return event.frames[1].function
        return "<module>" if self.trace.events else None

    def _phases(self) -> tuple[str, ...]:
        """Train, adapt, serialise, load, evaluate, report: in the order in which the trace shows them."""
        found: list[str] = []
        reported = {e.seq for e in self.reported.scores}
        for event in self.trace.events:
            phase = None
            if event.kind is Kind.STEP:
                phase = "adapt on validation" if "val" in event.roles else "train"
            elif event.kind is Kind.SERIALIZE:
                phase = "serialise"
            elif event.kind is Kind.LOAD:
                phase = "load"
            elif event.kind is Kind.SCORE:
                phase = "evaluate (reported)" if event.seq in reported else "evaluate"
            elif event is self.reported.metric:
                phase = "report"
            if phase is not None and (not found or found[-1] != phase):
                found.append(phase)
        return tuple(found[:24])


class _Siblings:
    """Modules of the folder by import name, indexed when first imported."""

    def __init__(self, reading: Reading, entry: str) -> None:
        self.reading = reading
        folder = entry.rsplit("/", 1)[0] + "/" if "/" in entry else ""
        self.paths: dict[str, str] = {}
        for path in reading.python_files:
            for base in ("", folder):
                if path.startswith(base) and path != entry:
                    name = path[len(base) :].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                    self.paths.setdefault(name, path)

    def get(self, name: str, /) -> ProgramIndex | None:
        path = self.paths.get(name)
        return self.reading.index(path) if path is not None else self.reading.bundled(name)


_SOURCE_LINE = re.compile(r"""\bf["']|\b(?:print|log\w*)\(""")
"""Lines of source code that a log dumped, where the dump was not recognised as one."""


def _is_source(line: str) -> bool:
    return ("(" in line or 'f"' in line or "f'" in line) and _SOURCE_LINE.search(line) is not None


def _longest_line(text: str) -> str:
    """The longest line of a text that may print several, without unknown parts at its ends."""
    return max((line.strip() for line in text.split("\n")), key=len).strip(f" \t\r{HOLE}")


@lru_cache(maxsize=2_000)
def _pattern(text: str) -> str | None:
    """A regular expression for what a partly known text prints; None if too little of it is known."""
    pieces = _longest_line(text).split(HOLE)
    if sum(c.isalnum() for piece in pieces for c in piece) < 6:
        return None
    return ".*?".join(re.escape(re.sub(r"\s+", " ", p)) for p in pieces).replace(r"\ ", r"\s+")


def printed_in(body: Sequence[ast.AST]) -> list[str]:
    """The texts that statements print or log themselves, with holes; functions they call are not entered."""
    found: list[str] = []
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for node in walk(statement):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if not _tells(node.func):
                continue
            first = node.args[0]
            if isinstance(first, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in first.values))
            elif isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append(first.value)
    return found


def _tells(function: ast.expr) -> bool:
    """Whether a function is named like one that prints or logs, or belongs to something that is."""
    while isinstance(function, ast.Attribute):
        if "print" in function.attr or "log" in function.attr:
            return True
        function = function.value
    name = function.id if isinstance(function, ast.Name) else ast.unparse(function)
    return "print" in name or "log" in name


def prints(text: str, line: str) -> bool:
    """Whether a print of ``text`` (with unknown parts) can have produced ``line``."""
    pattern = _pattern(text)
    return pattern is not None and re.search(pattern, line) is not None


def _score_roles(event: Event) -> frozenset[str]:
    return frozenset(r for r in event.roles if r.startswith("score:"))


def _last_scored(metrics: list[Event]) -> Event | None:
    scored = [m for m in metrics if any(r.startswith("score:") for r in m.roles)]
    outside = [m for m in scored if not m.loops]
    return (outside or scored)[-1] if scored else None


def _outermost(metrics: list[Event]) -> Event | None:
    """The last of these that is not merely handed on by a logging function."""
    depth = min((len(m.frames) for m in metrics), default=0)
    return next((m for m in reversed(metrics) if len(m.frames) == depth), None)


def _feeding(metric: Event, scores: dict[int, Event]) -> tuple[Event, ...]:
    """The score events whose sum the metric prints: those of the latest evaluation among them."""
    found = [
        scores[int(r.removeprefix("score:"))]
        for r in metric.roles
        if r.startswith("score:") and int(r.removeprefix("score:")) in scores
    ]
    if not found:
        return ()
    found.sort(key=lambda e: e.seq)
    last = found[-1]
    around = {f.id for f in last.frames} - {f.id for f in metric.frames}
    kept = {e.seq: e for e in found if e.frame == last.frame or e.frame in around} or {last.seq: last}
    # A mixture is scored from losses that were scored before it: these belong to the same evaluation.
    todo = list(kept.values())
    while todo:
        for role in todo.pop().roles:
            seq = int(role[6:]) if role.startswith("score:") else 0
            if seq in scores and seq not in kept:
                kept[seq] = scores[seq]
                todo.append(scores[seq])
    return tuple(sorted(kept.values(), key=lambda e: e.seq))


def _scored_before(trace: Trace, metric: Event) -> tuple[Event, ...]:
    """The scores of the last evaluation that the function which prints ``metric`` called before it does."""
    depth = len(metric.frames)
    inside = [
        e
        for e in trace.of(Kind.SCORE)
        if e.seq < metric.seq and len(e.frames) > depth and e.frames[depth - 1].id == metric.frames[-1].id
    ]
    if not inside:
        return ()
    last = inside[-1].frames[depth].id
    return tuple(e for e in inside if e.frames[depth].id == last)


def _only_tells(statement: ast.stmt) -> bool:
    """Whether a statement does no more than print, count, leave a loop or keep a copy of some weights."""
    for node in walk(statement):
        if isinstance(node, (ast.For, ast.While, ast.With, ast.Return, ast.Raise)):
            return False
        if isinstance(node, ast.Call):
            texts = (ast.Constant, ast.JoinedStr, ast.BinOp)
            if isinstance(node.func, ast.Name) and not all(isinstance(a, texts) for a in node.args):
                return False
            if isinstance(node.func, ast.Attribute) and node.func.attr not in _BOOKKEEPING:
                return False
    return True


_BOOKKEEPING = frozenset(
    {
        "append", "clone", "clear", "copy", "cpu", "detach", "float", "format", "info", "item", "items", "log",
        "perf_counter", "state_dict", "synchronize", "time", "to", "update", "write",
    }
)  # fmt: skip


def _channel(message: Event) -> str:
    """By what a message is printed: the console may show what the log file lacks."""
    return ast.unparse(message.node.func) if isinstance(message.node, ast.Call) else ""


def _guards(event: Event) -> list[tuple[int, bool]]:
    return [(id(g.node), g.negated) for g in event.guards]


def _undecided(event: Event) -> list[tuple[int, bool]]:
    return [(id(g.node), g.negated) for g in event.undecided]


def _same_branch(message: Event, event: Event) -> bool:
    """Whether the message is printed exactly in the guarded branch that leads to the event."""
    ours, theirs = _guards(event), _guards(message)
    return bool(theirs) and ours[: len(theirs)] == theirs and len(message.loops) <= len(event.loops)


def _implied(message: Event, event: Event) -> bool:
    """Whether the message is printed whenever the event happens."""
    ours = set(_guards(event))
    return set(_undecided(message)) <= ours and len(message.loops) <= len(event.loops) + 1
