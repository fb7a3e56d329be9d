"""Text for the tiny world: sentences of our own from a seed, and byte pair encoding of them.

The sentences repeat a small stock of words, so that a model learns something in a few steps, and hold what byte counts
are wrong about: capitals, words all in capitals, letters of two and three bytes, an emoji, digits, and punctuation
without a space before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from random import Random

MARK = "\u2581"
"""What SentencePiece writes for a space."""

_SUBJECTS = (
    "the gardener", "a small boat", "my neighbour", "the old clock", "every student", "the café owner", "rain",
    "her sister", "the NASA engineer", "Zoë", "nobody", "the train from Kraków", "a fox", "Mr. Okafor", "the committee",
)  # fmt: skip
_VERBS = (
    "watered", "waited for", "painted", "forgot", "carried", "counted", "repaired", "followed", "heard", "sold",
    "remembered", "walked past", "was looking for", "wrote about", "opened",
)  # fmt: skip
_OBJECTS = (
    "the roses", "the harbour", "a red door", "seven letters", "the bridge", "an umbrella", "the piano", "two apples",
    "the naïve plan", "a map of Tōkyō", "the USB cable", "the library", "some bread", "the window", "their names",
)  # fmt: skip
_TAILS = (
    "in the morning", "again", "without a word", "on Monday", "near the river", "before dinner", "for an hour",
    "in {year}", "at {price} €", "with great care", "— slowly", "🙂", "after the storm", "as usual", "in 東京",
)  # fmt: skip
_ENDS = (".", ".", ".", "!", "?", "; so it goes.", ", and then went home.", ", I think.")


def sentence(random: Random) -> str:
    """One sentence: no leading or trailing space, single spaces only."""
    subject, verb, thing, tail, end = (random.choice(part) for part in (_SUBJECTS, _VERBS, _OBJECTS, _TAILS, _ENDS))
    tail = tail.format(year=random.randrange(1900, 2027), price=random.randrange(2, 400))
    whole = f"{subject} {verb} {thing} {tail}" if random.random() < 0.7 else f"{tail} {subject} {verb} {thing}"
    return whole[0].upper() + whole[1:] + end


def words(random: Random) -> Iterator[str]:
    """Words without end, each with the space in front of it."""
    while True:
        yield from (f" {word}" for word in sentence(random).split(" "))


class Encoder:
    """Byte pair encoding as SentencePiece does it: the best-ranked pair first, bytes for what has no piece.

    ``merges`` are pieces of several characters, best first; ``characters`` single ones. A merge never crosses a space.
    """

    def __init__(self, merges: Sequence[str], characters: Iterable[str]) -> None:
        self.rank = {piece: rank for rank, piece in enumerate(merges)}
        self.characters = frozenset(characters)
        self.word = lru_cache(maxsize=4096)(self._word)

    def _word(self, word: str) -> tuple[str | int, ...]:
        """The pieces of one word with its space, if any, in front; a byte is an integer."""
        parts = list(word.replace(" ", MARK))
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: self.rank.get(parts[i] + parts[i + 1], len(self.rank)))
            joined = parts[best] + parts[best + 1]
            if joined not in self.rank:
                break
            parts[best : best + 2] = [joined]
        found: list[str | int] = []
        for part in parts:
            if part in self.rank or part in self.characters:
                found.append(part)
            else:
                found += part.encode("utf-8")
        return tuple(found)


def learn(sample: Iterable[str], slots: int) -> Encoder:
    """Learns pieces from words: about half of ``slots`` for frequent characters, the rest for merges.

    The space is always among the characters; digits are never merged, so that a run of n digits is n tokens.
    """
    counts = Counter(word.replace(" ", MARK) for word in sample)
    single: Counter[str] = Counter()
    for word, n in counts.items():
        for c in word:
            single[c] += n
    order = [MARK, *(c for c, _ in sorted(single.items(), key=lambda item: (-item[1], item[0])) if c != MARK)]
    characters = order[: max(1, slots // 2)]
    known = frozenset(characters)
    merges: list[str] = []
    split = {word: list(word) for word in counts}
    while len(merges) < slots - len(characters):
        pairs: Counter[str] = Counter()
        for word, parts in split.items():
            for left, right in pairwise(parts):
                usable = all(p in known or len(p) > 1 for p in (left, right))
                if usable and not any(c.isdigit() for c in left + right):
                    pairs[left + right] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda piece: (-pairs[piece], piece))
        merges.append(best)
        for parts in split.values():
            at = 0
            while at < len(parts) - 1:
                if parts[at] + parts[at + 1] == best:
                    parts[at : at + 2] = [best]
                at += 1
    return Encoder(merges, characters)
