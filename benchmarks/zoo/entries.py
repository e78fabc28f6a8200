"""The list of models: how each network is built, its inputs and its class.

Weights are random with a fixed seed. BatchNorm statistics are those of random images, and weights
that an initialization sets to (nearly) zero are random too, so that every layer has an effect on
the outputs and all values have a usual range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import AttentionBlock
from benchmarks.zoo.vision import Detector, UNet

CONVOLUTIONAL, TRANSFORMER, OVERHEAD = "convolutional", "transformer", "overhead-bound"
Arrays = dict[str, np.ndarray[Any, Any]]

FILES = {  # trained models in public wheels, by their name in the manifest of the test zoo
    "rapidocr_det_v6": CONVOLUTIONAL,
    "dnsmos_model_v8": CONVOLUTIONAL,
    "silero_vad": OVERHEAD,
    "silero_vad_openvino_16k": OVERHEAD,
    "aecmos_16k": OVERHEAD,
}


@dataclass(frozen=True)
class Entry:
    """A network in torch: `build` returns it in eval mode, with the same weights each time."""

    name: str
    kind: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Mapping[str, Tensor]]
    dynamic: Mapping[str, Mapping[int, str]] | None = None


def _normal(*shape: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"x": torch.randn(shape, generator=torch.Generator().manual_seed(1))}


def _image(size: int) -> Callable[[], dict[str, Tensor]]:
    return _normal(1, 3, size, size)


def _tokens(vocabulary: int) -> Callable[[], dict[str, Tensor]]:
    def inputs() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(0, vocabulary, (1, 128), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return inputs


def _calibrate(network: nn.Module, size: int) -> nn.Module:
    """Set the statistics of BatchNorm to those of four random images."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.train()
    with torch.no_grad():
        network(torch.randn(4, 3, size, size))
    return network.eval()


def _seeded(make: Callable[[], nn.Module], size: int | None = None) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = make().eval()
            return network if size is None else _calibrate(network, size)

    return build


def _torchvision(name: str, kind: str = CONVOLUTIONAL) -> Entry:
    def make() -> nn.Module:
        import torchvision

        network: nn.Module = getattr(torchvision.models, name)(weights=None)
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.endswith("layer_scale"):  # 1e-6, which would hide each block
                nn.init.uniform_(parameter, 0.1, 0.5)
        _initialize_head(network)
        return network

    return Entry(name, kind, _seeded(make, 224), _image(224))


def _initialize_head(network: nn.Module) -> None:
    """Set the last linear layer, whose initial weights are tiny or zero in some networks."""
    *_, head = (m for m in network.modules() if isinstance(m, nn.Linear))
    nn.init.normal_(head.weight, std=head.in_features**-0.5)


def _vit_small() -> nn.Module:
    from torchvision.models import VisionTransformer

    network = VisionTransformer(224, 16, 12, 6, 384, 1536)
    _initialize_head(network)
    return network


class _Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(attn_implementation="eager"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.bert(input_ids, attention_mask=attention_mask)
        return found.last_hidden_state, found.pooler_output


class _Gpt2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        self.gpt2 = GPT2Model(GPT2Config(attn_implementation="eager", use_cache=False))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.gpt2(input_ids, attention_mask=attention_mask, use_cache=False)
        return found.last_hidden_state


def _mlp() -> nn.Module:
    layers = [nn.Linear(16, 16) for _ in range(150)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


ENTRIES = (
    *map(_torchvision, ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large")),
    *map(_torchvision, ("efficientnet_b0", "convnext_tiny", "densenet121", "regnet_y_400mf")),
    Entry("unet", CONVOLUTIONAL, _seeded(UNet, 128), _image(256)),
    Entry("detector", CONVOLUTIONAL, _seeded(Detector, 320), _image(320)),
    Entry("vit_small", TRANSFORMER, _seeded(_vit_small), _image(224)),
    _torchvision("swin_t", TRANSFORMER),
    Entry("bert_base", TRANSFORMER, _seeded(_Bert), _tokens(30522)),
    Entry("gpt2_small", TRANSFORMER, _seeded(_Gpt2), _tokens(50257)),
    Entry(
        "transformer_block",
        OVERHEAD,
        _seeded(AttentionBlock),
        _normal(1, 16, 64),
        dynamic={"x": {0: "batch", 1: "length"}},
    ),
    Entry("mlp300", OVERHEAD, _seeded(_mlp), _normal(1, 16)),
)

_KINDS = {entry.name: entry.kind for entry in ENTRIES} | FILES
KINDS = {
    name: kind
    for of in (CONVOLUTIONAL, TRANSFORMER, OVERHEAD)
    for name, kind in _KINDS.items()
    if kind == of
}
"""Name of each model -> its class, class by class."""
