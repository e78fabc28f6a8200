"""Fully sharded data parallel: each process has its part of every weight, gradient and moment.

The weights of a block are whole only while it runs. The file is mapped: only this process's part
of it is read.

    torchrun --nproc-per-node 2 examples/distributed/fsdp.py
"""

from __future__ import annotations

import torch.distributed as dist
from network import difference, say, start
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from onnxinterp import OnnxModule


def main() -> float:
    """Return how far the losses are from those of one process."""
    module = start()  # the weights are mapped from transformer.onnx.data, not read
    for block in module.blocks.children():
        fully_shard(block)  # which copies this rank's part of them
    fully_shard(module)  # the rest: words, norm and head
    mine = sum(p.to_local().numel() for p in module.parameters())
    apart = difference(module)
    say(f"FSDP2: {mine} of {sum(p.numel() for p in module.parameters())} elements are here")
    say(f"FSDP2: the losses of 4 steps differ from one process's by at most {apart:.1e}")

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(module, options=options)  # whole, in the first process
    if dist.get_rank() == 0:
        whole = OnnxModule("transformer.onnx")
        whole.load_state_dict(weights)
        whole.save_onnx("tuned.onnx")
    dist.destroy_process_group()
    return apart


if __name__ == "__main__":
    main()
