"""The catalogue: which rules there are, what each is decided from, and what an active finding means.

The usual effect only: a rule may deviate for one finding (an external program that is declared is accepted, one on
the non-record track does not break a rule of the record track).
"""

from __future__ import annotations

import pytest

import rules

# group, slug, decided from, effect under official, effect under strict
CATALOGUE = """
leakage       val-data-in-training     code             violation  violation
leakage       paid-prefix              code+files       violation  violation
leakage       prequant-ttt             code+probe       violation  violation
leakage       val-calibration          code             violation  violation
leakage       train-val-overlap        log              violation  violation
leakage       external-train-data      code             advisory   advisory
adaptation    score-after-adapt        code+probe       violation  violation
adaptation    epoch-rescore            code+probe       violation  violation
adaptation    oracle-min               code             violation  violation
adaptation    two-pass-rescore         code+probe       violation  violation
adaptation    slot-scored-region       code+probe       advisory   violation
adaptation    slot-context-only        code             advisory   advisory
adaptation    eval-logit-bias          code             advisory   advisory
adaptation    cross-row-adaptation     code             violation  violation
adaptation    warmup-on-val            code             advisory   violation
distribution  ngram-target-in-key      code+probe       violation  violation
distribution  ngram-unnormalized       code+probe       violation  violation
distribution  ngram-train-tables       code             violation  violation
distribution  byte-mix-unnormalized    code+probe       violation  violation
distribution  target-gate              code+probe       violation  violation
distribution  scalar-expert            code             advisory   violation
architecture  noncausal-model          code+probe       violation  violation
architecture  smeargate-bos-leak       code+probe       violation  violation
metric        byte-count               code+log+probe   violation  violation
metric        lossy-tokenizer          code+files       advisory   violation
metric        eval-subset              code+log+probe   violation  violation
metric        noncanonical-val         log+files        violation  violation
metric        val-reorder              code             accepted   advisory
budget        oversize-artifact        log+files        violation  violation
budget        uncounted-code           code+files       advisory   violation
budget        train-over-time          log              violation  violation
budget        calibration-over-budget  code+log         advisory   violation
budget        eval-over-time           log+code         violation  violation
budget        external-binary          code+files+probe violation  violation
budget        network-access           code+probe       violation  violation
budget        wrong-hardware           log              violation  violation
evidence      insufficient-seeds       log+files        violation  violation
evidence      not-significant          log              advisory   violation
evidence      val-tuned-constants      code             advisory   advisory
evidence      offline-constants        code             advisory   advisory
evidence      claim-log-mismatch       log+files        violation  violation
evidence      code-log-mismatch        log+code         advisory   violation
evidence      cloned-logs              log              advisory   violation
evidence      missing-files            files            violation  violation
evidence      broken-script            code+probe       violation  violation
evidence      opaque-code              code             advisory   advisory
evidence      hidden-unicode           files            advisory   violation
"""
ROWS = {row[1]: tuple(row) for line in CATALOGUE.strip().splitlines() if (row := line.split())}
RULES = {rule.slug: rule for rule in rules.discover()}


def test_every_rule_is_in_the_catalogue() -> None:
    assert sorted(set(RULES) - set(ROWS)) == []


@pytest.mark.parametrize("slug", sorted(RULES))
def test_group_and_effects_are_the_catalogues(slug: str) -> None:
    rule = RULES[slug]
    group, _, _, official, strict = ROWS[slug]
    assert (rule.group, rule.official.value, rule.strict.value) == (group, official, strict)


def test_every_slug_of_the_catalogue_is_a_rule() -> None:
    assert sorted(set(ROWS) - set(RULES)) == []
    told = {slug: "+".join(rule.evidence) for slug, rule in RULES.items()}
    assert told == {slug: row[2] for slug, row in ROWS.items()}
