"""Pipeline parallel: each process has some of the blocks, and passes on what they return.

A model is split where a block begins; torch.export shows torch the blocks of the file.

    torchrun --nproc-per-node 2 examples/distributed/pipeline.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from network import BATCH, DEPTH, batch, loss_of, say, start
from torch.distributed.pipelining import ScheduleGPipe, SplitPoint, pipeline

MICROBATCHES = 4


def main() -> float:
    """Return how far the outputs are from those of one process."""
    module, rank, ranks = start(), dist.get_rank(), dist.get_world_size()
    ids, wanted = batch()
    with torch.no_grad():
        whole = module(ids)
    splits = {f"blocks.{DEPTH * i // ranks}": SplitPoint.BEGINNING for i in range(1, ranks)}
    pipe = pipeline(module, (ids[: BATCH // MICROBATCHES],), split_spec=splits)
    stage = pipe.build_stage(rank, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, MICROBATCHES, loss_fn=loss_of)
    optimizer = torch.optim.AdamW(stage.submod.parameters(), lr=1e-3)

    inputs = (ids,) if stage.is_first else ()
    targets = {"target": wanted, "losses": []} if stage.is_last else {}
    result = schedule.step(*inputs, **targets)  # forward and backward
    optimizer.step()
    apart = torch.zeros(()) if result is None else (result - whole).abs().max()
    dist.all_reduce(apart, dist.ReduceOp.MAX)
    say(f"pipeline: {pipe.num_stages} stages; the outputs differ from one process's by {apart:.1e}")
    dist.destroy_process_group()
    return apart.item()


if __name__ == "__main__":
    main()
