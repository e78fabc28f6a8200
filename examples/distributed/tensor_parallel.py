"""Tensor parallel: each process has some columns and rows of the matrices of each block.

`tensor_parallel_plan` finds the pairs of linear layers that can be split: fc1 and fc2 of this
model, whose attention has its number of heads in the graph.

    torchrun --nproc-per-node 2 examples/distributed/tensor_parallel.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from network import batch, say, start, train
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import parallelize_module

from onnxinterp import OnnxModule
from onnxinterp.training.parallel import tensor_parallel_plan


def main() -> float:
    """Return how far the losses are from those of one process."""
    start()
    module = OnnxModule("transformer.onnx", leaves="nn")  # with layers of type nn.Linear
    plan = tensor_parallel_plan(module, batch()[:1], dist.get_world_size())
    for path in list(plan)[:2]:
        say(f"tensor parallel: {path} is {type(plan[path]).__name__}")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    parallelize_module(module, mesh, plan, src_data_rank=None)  # each process reads its part
    losses, alone = train(module), train(OnnxModule("transformer.onnx"))
    apart = (torch.tensor(losses) - torch.tensor(alone)).abs().max().item()
    say(f"tensor parallel: the losses of 4 steps differ from one process's by at most {apart:.1e}")
    dist.destroy_process_group()
    return apart


if __name__ == "__main__":
    main()
