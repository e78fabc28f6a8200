"""Two processes that work together: in one gloo group on the CPU, or as torchrun starts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.distributed.network import BATCH
from tests.processes import Child, Lost

RANKS = 2
Together = Callable[..., list[Any]]


def _call(request: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    work, arguments = request
    torch.set_num_threads(1)
    return work(*arguments)


def _in_group(rank: int, store: str, work: Callable[..., Any], *arguments: Any) -> Any:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    try:
        return work(rank, *arguments)
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def side_by_side() -> Iterator[Together]:
    """Runs `work(rank, *arguments)` in each of two processes; returns the results by rank."""
    children = [Child(_call, patience=60, memory=None) for _ in range(RANKS)]

    def run(work: Callable[..., Any], *arguments: Any) -> list[Any]:
        for rank, child in enumerate(children):
            child.put((work, (rank, *arguments)))
        results = [child.take()[1] for child in children]
        lost = [result for result in results if isinstance(result, Lost)]
        assert not lost, lost
        return results

    yield run
    for child in children:
        child.close()


@pytest.fixture
def together(side_by_side: Together, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """The same in a group of the two."""

    def run(work: Callable[..., Any], *arguments: Any) -> list[Any]:
        store = str(tmp_path_factory.mktemp("group") / "store")
        return side_by_side(_in_group, store, work, *arguments)

    return run


def part_of(rank: int) -> slice:
    """The rows of each batch that a rank has."""
    rows = BATCH // RANKS
    return slice(rank * rows, (rank + 1) * rows)
