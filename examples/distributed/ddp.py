"""Data parallel: each process has all weights and its part of the data.

Gradients are averaged as they come, so all processes take the same steps.

    torchrun --nproc-per-node 2 examples/distributed/ddp.py
"""

from __future__ import annotations

import torch.distributed as dist
from network import difference, say, start
from torch.nn.parallel import DistributedDataParallel


def main() -> float:
    """Return how far the losses are from those of one process."""
    module = start()
    apart = difference(DistributedDataParallel(module))
    say(f"DDP: the losses of 4 steps differ from one process's by at most {apart:.1e}")
    dist.destroy_process_group()
    return apart


if __name__ == "__main__":
    main()
