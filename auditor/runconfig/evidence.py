"""Everything a record folder's files tell about the run that produced the claimed number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cached_property, lru_cache

from auditor.logs import Metric, RunLog, read_logs
from auditor.runconfig.claim import Claim, read_claim
from auditor.runconfig.claimed import Claims, read_claims
from auditor.runconfig.declared import Declaration, find_declaration
from auditor.runconfig.launches import (
    Document,
    LaunchCommand,
    claimed,
    read_documents,
    read_launches,
    script_name,
)
from auditor.shell import unresolved
from auditor.submission import RecordFolder
from auditor.text import canonical, decimal, decimals
from auditor.verdict import SettingValue

_README_CLAIM = re.compile(
    r"(?i)(?:val_?bpb|\bbpb|bits[ -]per[ -]byte)[^\d\n]{0,40}(?<![\d.])(\d\.\d{3,10})|"
    r"(?<![\d.])(\d\.\d{3,10})\W{0,6}(?:val_?)?bpb"
)
_DIGITS = re.compile(r"\d+")

_SeedValues = tuple[tuple[int | None, Decimal], ...]


@dataclass(frozen=True)
class ReportedLabel:
    """The log line that carries the claimed number.

    ``label`` is how the line introduces it and ``key`` the name of the figure there; ``value`` in bits per
    byte. ``linked`` is False when the figure merely is the last result in the log, not equal to the claim.
    ``alternatives`` are other labels whose figure equals the claim too. ``how`` says how the link was made.
    """

    label: str
    key: str
    value: float
    val_loss: float | None
    file: str
    line: int
    text: str
    how: str
    linked: bool
    alternatives: tuple[Metric, ...] = ()
    runs: tuple[RunLog, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Effective:
    """A setting as the files give it.

    ``value`` is the winning raw text, None when nothing says or (with ``conflict``) nothing decides;
    ``values`` is every value seen, weakest first; ``conflict`` is a sentence, when sources of the winning
    rank disagree or their text can't be resolved.
    """

    value: str | None
    values: tuple[SettingValue, ...] = ()
    conflict: str | None = None


@dataclass(frozen=True)
class RunEvidence:
    """Launch commands, logs and claim of one record folder. Build it once with :meth:`collect`."""

    folder: RecordFolder = field(repr=False)
    claim: Claim
    documents: tuple[Document, ...] = field(repr=False)
    launches: tuple[LaunchCommand, ...]
    logs: tuple[RunLog, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def collect(cls, folder: RecordFolder) -> RunEvidence:
        """Read the folder's documents, scripts and logs. Never raises on their content."""
        claim = read_claim(folder)
        documents = read_documents(folder)
        launches = read_launches(folder, documents, claim)
        logs, notes = read_logs(folder)
        more = [claim.problem] if claim.problem else []
        for run in logs:
            if run.seed_in_name is not None and run.seed is not None and run.seed != run.seed_in_name:
                more.append(f"{run.file}: named for seed {run.seed_in_name} but prints seed {run.seed}")
        return cls(folder, claim, documents, launches, logs, tuple(dict.fromkeys([*notes, *more])))

    @cached_property
    def claimed_launches(self) -> tuple[LaunchCommand, ...]:
        """The launches that speak for the claimed run."""
        return claimed(self.launches)

    @cached_property
    def claim_runs(self) -> tuple[RunLog, ...]:
        """The runs the claim rests on; where none could be linked, the runs in the shallowest log files."""
        link = self._link
        if link is not None and link.runs and link.linked:
            return link.runs
        told = [r for r in self.logs if r.final_metrics] or [r for r in self.logs if r.hyperparameters]
        depth = min((r.file.count("/") for r in told), default=0)
        return tuple(r for r in told if r.file.count("/") == depth)

    @cached_property
    def training_runs(self) -> tuple[RunLog, ...]:
        """Where the claim rests on logs of evaluation alone: the runs that trained with the same seeds."""
        bare = {r.seed for r in self.claim_runs if r.last_step is None and r.seed is not None}
        trained = [r for r in self.logs if r.seed in bare and r.last_step and r not in self.claim_runs]
        depth = min((r.file.count("/") for r in trained), default=0)
        return tuple(r for r in trained if r.file.count("/") == depth)

    def reported(self) -> ReportedLabel | None:
        """The log line with the claimed number, or the last result in the logs; None without any result."""
        return self._link

    def setting(
        self, *, env: str | None = None, attribute: str | None = None, flag: str | None = None
    ) -> tuple[SettingValue, ...]:
        """Every value seen for a setting, weakest first: launch command < submission.json < log.

        The setting may be known by an environment variable, an attribute (as hyperparameter dumps print it)
        and a command-line flag; case doesn't matter. Only the claim's launches and runs are asked.
        """
        names = _names(env, attribute, flag)
        if names not in self._settings:
            self._settings[names] = self._seen(names)
        return self._settings[names]

    @cached_property
    def _settings(self) -> dict[tuple[str, ...], tuple[SettingValue, ...]]:
        return {}

    @cached_property
    def _named(self) -> frozenset[str]:
        """Every name that some launch, the claim or a log gives a value to."""
        launched = (x.names for x in self.claimed_launches)
        return self.claim.names.union(*launched, *(run.setting_names for run in self.logs))

    def _seen(self, names: tuple[str, ...]) -> tuple[SettingValue, ...]:
        if self._named.isdisjoint(names):
            return ()
        launched = (v for x in reversed(self.claimed_launches) if (v := x.setting(names)) is not None)
        values: list[SettingValue] = [*launched, *self.claim.settings(names)]
        for run in self.claim_runs:
            logged = self._logged(run, names)
            if logged is not None:
                values.append(logged)
        if not any(v.origin == "log" for v in values):
            trained = (self._logged(run, names) for run in self.training_runs)
            values.extend(v for v in trained if v is not None)
        return tuple(dict.fromkeys(values))

    def effective(self, *, env: str | None = None, attribute: str | None = None, flag: str | None = None) -> Effective:
        """The value in force as far as the files tell; see :meth:`setting` for the names."""
        values = self.setting(env=env, attribute=attribute, flag=flag)
        if not values:
            return Effective(None)
        origin = values[-1].origin
        strongest = [v for v in values if v.origin == origin]
        known = [v for v in strongest if not unresolved(v.value)]
        if not known:
            text = f"{origin} gives {strongest[-1].value!r}, which its text does not resolve"
            return Effective(None, values, text)
        if origin == "launch command":
            partial = self._partly_set(_names(env, attribute, flag))
            if partial is not None:
                return Effective(partial[0], values, partial[1])
        counts = Counter(canonical(v.value) for v in known)
        best = self._preferred(known, counts)
        if len(counts) == 1:
            return Effective(best.value, values)
        shown = {canonical(v.value): v for v in reversed(known)}
        listed = "; ".join(f"{v.value} ({v.file}:{v.line})" for v in list(shown.values())[::-1][:6])
        what = {"log": "logs", "launch command": "launch commands"}.get(origin, origin)
        return Effective(best.value, values, f"{what} disagree: {listed}")

    def _partly_set(self, names: tuple[str, ...]) -> tuple[str | None, str] | None:
        """Where only some launches of one script give a setting: the value to assume, and a sentence.

        The majority decides and, in a tie, the first launch: leaving a setting out is a statement too.
        """
        given = [(x, x.setting(names)) for x in self.claimed_launches]
        scripts = {script_name(x) for x, v in given if v is not None}
        votes = [(x, v) for x, v in given if script_name(x) in scripts]
        setting = [v for _, v in votes if v is not None]
        if len(setting) == len(votes):
            return None
        first = votes[0][1]
        assumed = setting[0] if 2 * len(setting) > len(votes) else first if 2 * len(setting) == len(votes) else None
        text = f"set by {len(setting)} of {len(votes)} launch commands ({setting[0].file}:{setting[0].line})"
        return (assumed.value if assumed is not None else None), text

    def _preferred(self, known: list[SettingValue], counts: Counter[str]) -> SettingValue:
        link = self._link
        if link is not None:
            own = [v for v in known if v.origin == "log" and v.file == link.file]
            if own:
                return own[-1]
        top = max(counts.values())
        return next(v for v in known if counts[canonical(v.value)] == top)

    def _logged(self, run: RunLog, names: tuple[str, ...]) -> SettingValue | None:
        """The value ``run`` printed; what an earlier run in the same file printed when it is silent.

        One log often holds a training process and then the evaluation process that loads its model.
        """
        value = run.setting(names)
        if value is None and run.first_line > 1:
            earlier = self._earlier(run)
            value = next((v for r in earlier if (v := r.setting(names)) is not None), None)
        if value is None:
            return None
        return SettingValue(value=value.value, origin="log", file=run.file, line=value.line)

    def _earlier(self, run: RunLog) -> list[RunLog]:
        """The runs before ``run`` in its file, the last first."""
        if id(run) not in self._runs_before:
            before = [r for r in self.logs if r.file == run.file and r.last_line < run.first_line]
            self._runs_before[id(run)] = before[::-1]
        return self._runs_before[id(run)]

    @cached_property
    def _runs_before(self) -> dict[int, list[RunLog]]:
        return {}

    def find(
        self, pattern: str | re.Pattern[str], *, every_log: bool = False, words: Collection[str] = ()
    ) -> list[tuple[str, int, str]]:
        """(file, line, text) of log lines with a fixed text or matching a regex; embedded source is left out.

        The logs of the claim's runs and of their training only, whole files, unless ``every_log``. ``words`` are what
        a match cannot do without: see :meth:`LogFile.find`.
        """
        asked = self.logs if every_log else (*self.claim_runs, *self.training_runs)
        files = dict.fromkeys(r.file for r in asked)
        by_file = {r.file: r.log for r in self.logs}
        return [(f, hit.line, hit.value) for f in files for hit in by_file[f].find(pattern, words=words)]

    def declared(self, program: str) -> Declaration | None:
        """The strongest place where the set-up notes name ``program``, or None."""
        return find_declaration(self.folder, self.documents, program)

    @cached_property
    def readme_claim(self) -> tuple[Decimal, str, int] | None:
        """The first bits-per-byte figure in README (title first) with its file and line."""
        for document in self.documents[:3]:
            for piece in document.prose[:400]:
                match = _README_CLAIM.search(piece.text)
                number = decimal(match[1] or match[2]) if match else None
                if number is not None and Decimal("0.05") < number < 5:
                    return number, document.file, piece.line
        return None

    @cached_property
    def claims(self) -> Claims:
        """Every figure that submission.json and the README's tables state."""
        return read_claims(self.folder, self.claim, self.documents)

    @cached_property
    def _link(self) -> ReportedLabel | None:
        runs = tuple(r for r in self.logs if r.metrics)
        if not runs:
            return None
        by_seed = self.claim.seed_values()
        value = self.claim.val_bpb
        source = f"{self.claim.val_bpb_key} in submission.json"
        if value is None and not by_seed and self.readme_claim is not None:
            value = self.readme_claim[0]
            source = f"first figure in {self.readme_claim[1]}:{self.readme_claim[2]}"
        link = _by_seed(runs, by_seed, self.claim) if by_seed else None
        if link is not None:
            return link
        if value is not None:
            link = (
                _by_mean(runs, value, source, self.claim)
                or _by_value(runs, value, source, self.claim)
                or _by_last_results(runs, value, source)
            )
            if link is not None:
                return link
        return _last_result(runs, value)


@lru_cache(maxsize=4096)
def _names(env: str | None, attribute: str | None, flag: str | None) -> tuple[str, ...]:
    given = (n.lstrip("-").replace("-", "_").lower() for n in (attribute, env, flag) if n)
    return tuple(dict.fromkeys(n for n in given if n))


def same_figure(printed: Decimal, claim: Decimal) -> bool:
    """Whether a printed figure is the claimed one, up to rounding (either way) of the less exact of the two.

    A figure printed with fewer than four decimals says too little to stand for a claim that has more.
    """
    digits = min(decimals(printed), decimals(claim))
    if digits < 4 and printed != claim and (digits < 2 or decimals(printed) < decimals(claim)):
        return False
    unit = Decimal(1).scaleb(-digits)
    up, even = (claim.quantize(unit, m) for m in (ROUND_HALF_UP, ROUND_HALF_EVEN))
    return any(printed.quantize(unit, m) in (up, even) for m in (ROUND_HALF_UP, ROUND_HALF_EVEN))


def _matching(run: RunLog, value: Decimal, kinds: Iterable[str]) -> list[Metric]:
    return [m for m in run.metrics if m.kind in kinds and same_figure(m.bpb, value)]


def _order(metric: Metric, claim_loss: Decimal | None) -> tuple[bool, int, bool, int]:
    """Sort key: agreeing loss, printed digits, an "exact" label, later in the log."""
    loss = decimal(metric.loss_text) if metric.loss_text else None
    agrees = loss is not None and claim_loss is not None and same_figure(loss, claim_loss)
    return agrees, min(decimals(metric.bpb), 6), "exact" in metric.label.lower(), metric.line


def _report(
    best: Metric,
    run: RunLog,
    how: str,
    runs: Iterable[RunLog],
    same: Iterable[Metric],
    *,
    linked: bool = True,
) -> ReportedLabel:
    others: dict[tuple[str, str], Metric] = {}
    for metric in same:
        if (metric.label, metric.key) != (best.label, best.key):
            others.setdefault((metric.label, metric.key), metric)
    return ReportedLabel(
        label=best.label,
        key=best.key,
        value=best.val_bpb,
        val_loss=best.val_loss,
        file=run.file,
        line=best.line,
        text=best.text,
        how=how,
        linked=linked,
        alternatives=tuple(others.values()),
        runs=tuple(runs),
    )


def _by_seed(runs: tuple[RunLog, ...], by_seed: _SeedValues, claim: Claim) -> ReportedLabel | None:
    """Link each claimed per-seed figure to a run; the label that serves most seeds is the reported one."""
    losses = {c.seed: c.val_loss for c in claim.per_seed}
    hits: list[tuple[int, RunLog, Metric]] = []  # the index of the claimed figure, and where it was found
    for kinds in (("final",), ("other", "progress", "step")):
        for index, (seed, value) in enumerate(by_seed):
            own = [r for r in runs if seed is not None and r.seed == seed]
            for pool in (own, [r for r in runs if r not in own]):
                found = [(index, r, m) for r in pool for m in _matching(r, value, kinds)]
                if found:
                    hits.extend(found)
                    break
        if hits:
            break
    if not hits:
        return None
    served: dict[tuple[str, str], set[int]] = {}
    for index, _, metric in hits:
        served.setdefault(_key(metric), set()).add(index)

    def weight(hit: tuple[int, RunLog, Metric]) -> tuple[object, ...]:
        index, _, metric = hit
        agrees, digits, exact, line = _order(metric, losses.get(by_seed[index][0]))
        return len(served[_key(metric)]), agrees, digits, exact, -index, line

    index, run, best = max(hits, key=weight)
    key = _key(best)
    linked = [r for _, r, m in hits if _key(m) == key]
    linked += [r for i, r, _ in hits if i not in served[key]]  # another label serves that seed
    seed = by_seed[index][0]
    whose = f"seed {seed}" if seed is not None else "one of the seeds"
    how = f"equals the value claimed for {whose}; {len({i for i, _, _ in hits})} of {len(by_seed)} claimed "
    how += "seeds found in the logs"
    for other, claimed_value in by_seed:
        own = [r for r in runs if other is not None and r.seed == other]
        if own and not any(r in linked for r in own):
            same = [(r, m) for r in own for m in r.final_metrics if _key(m) == key]
            if same:  # that seed's run, though its figure isn't the claimed one
                linked.append(same[-1][0])
                how += f"; seed {other}: claimed {claimed_value}, log says {same[-1][1].bpb_text}"
    return _report(best, run, how, _unique(linked), [m for _, _, m in hits])


def _unique(runs: Iterable[RunLog]) -> list[RunLog]:
    found: dict[tuple[str, int], RunLog] = {}
    for run in runs:
        found.setdefault((run.file, run.first_line), run)
    return list(found.values())


def metric_key(label: str, key: str) -> tuple[str, str]:
    """What names a figure. Labels of different seeds are one: digits that vary (a seed, a step) don't count."""
    return _DIGITS.sub("#", label), key


def _key(metric: Metric) -> tuple[str, str]:
    return metric_key(metric.label, metric.key)


def _by_mean(runs: tuple[RunLog, ...], value: Decimal, source: str, claim: Claim) -> ReportedLabel | None:
    """Find a label whose mean over a natural group of runs is the claimed value."""
    groups: list[tuple[str, list[RunLog]]] = []
    if claim.seeds:
        groups.append(("the claimed seeds", [r for r in runs if r.seed in claim.seeds]))
    depth = min(r.file.count("/") for r in runs)
    groups.append(("all runs", [r for r in runs if r.file.count("/") == depth]))
    stems: dict[str, list[RunLog]] = {}
    for run in runs:
        stems.setdefault(_DIGITS.sub("#", run.file), []).append(run)
    groups.extend((f"the runs named alike ({len(g)})", g) for g in stems.values())
    for name, group in groups:
        last: dict[tuple[str, str], dict[str, tuple[RunLog, Metric]]] = {}
        for run in group:
            for metric in run.final_metrics:
                last.setdefault(_key(metric), {})[run.file] = (run, metric)
        matches: list[tuple[RunLog, Metric, list[RunLog]]] = []
        for column in last.values():
            if len(column) < 2:
                continue
            if decimals(value) >= 3 and _is_mean([m for _, m in column.values()], value):
                run, metric = next(iter(column.values()))
                matches.append((run, metric, [r for r, _ in column.values()]))
        if matches:
            run, metric, linked = max(matches, key=lambda x: _order(x[1], None))
            how = f"its mean over {name} equals {source} ({value})"
            return _report(metric, run, how, linked, [m for _, m, _ in matches])
    return None


def _by_last_results(runs: tuple[RunLog, ...], value: Decimal, source: str) -> ReportedLabel | None:
    """The mean of each log's last result, for logs whose labels differ from seed to seed."""
    if decimals(value) < 4:
        return None
    stems: dict[str, list[RunLog]] = {}
    for run in runs:
        stems.setdefault(_DIGITS.sub("#", run.file), []).append(run)
    for group in stems.values():
        ends = [(r, r.final_metrics[-1]) for r in group if r.final_metrics]
        if len(ends) >= 2 and _is_mean([m for _, m in ends], value):
            how = f"the mean of the last results of {len(ends)} logs equals {source} ({value})"
            return _report(ends[0][1], ends[0][0], how, [r for r, _ in ends], [])
    return None


def _is_mean(metrics: list[Metric], value: Decimal) -> bool:
    """Whether the figures' mean is ``value``, up to rounding and the rounding of the figures themselves."""
    mean = sum((m.bpb for m in metrics), Decimal(0)) / len(metrics)
    unit = Decimal(1).scaleb(-min(decimals(value), *(decimals(m.bpb) for m in metrics)))
    return abs(mean - value) <= unit * Decimal("0.6")


def _by_value(runs: tuple[RunLog, ...], value: Decimal, source: str, claim: Claim) -> ReportedLabel | None:
    for kinds in (("final",), ("progress", "step", "other")):
        hits = [(r, m) for r in runs for m in _matching(r, value, kinds)]
        if not hits:
            continue
        depth = min(r.file.count("/") for r, _ in hits)
        hits = [h for h in hits if h[0].file.count("/") == depth]
        run, best = max(hits, key=lambda h: (h[0].seed in claim.seeds, *_order(h[1], claim.val_loss)))
        how = f"equals {source} ({value})"
        if kinds[0] != "final":
            how += "; only a line printed during training or evaluation carries it"
        return _report(best, run, how, [run], [m for r, m in hits])
    return None


def _last_result(runs: tuple[RunLog, ...], value: Decimal | None) -> ReportedLabel | None:
    depth = min(r.file.count("/") for r in runs)
    shallow = [r for r in runs if r.file.count("/") == depth]
    ends = [(r, r.final_metrics[-1]) for r in shallow if r.final_metrics]
    if not ends:
        return None
    # Logs of several configurations: the one that comes nearest is the likeliest to be meant.
    run, metric = ends[0] if value is None else min(ends, key=lambda end: abs(end[1].bpb - value))
    why = f"no log line equals the claim {value}" if value is not None else "no claimed figure was found"
    return _report(metric, run, f"{why}; this is the last result in the log", [run], [], linked=False)
