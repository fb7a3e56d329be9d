"""``tqdm``: the thing itself, without a bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class tqdm:
    """Iterates and says nothing."""

    def __init__(self, iterable: Iterable[Any] = (), *args: Any, **options: Any) -> None:
        self.iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def __enter__(self) -> tqdm:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix(self, *args: Any, **options: Any) -> None:
        pass

    def set_description(self, *args: Any, **options: Any) -> None:
        pass

    def close(self) -> None:
        pass

    @staticmethod
    def write(text: str, *args: Any, **options: Any) -> None:
        print(text)


def trange(*bounds: int, **options: Any) -> tqdm:
    """A bar over a range."""
    return tqdm(range(*bounds))
