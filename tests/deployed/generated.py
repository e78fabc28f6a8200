"""Decoders as the builder of onnxruntime-genai writes them, from small checkpoints of transformers.

The builder is not a dependency of the tests: they are skipped where it is not installed.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from onnxinterp import OnnxModule
from tests import exporting
from tests.deployed import judging
from tests.deployed.files import Feeds, key
from tests.deployed.judging import ACTIVATIONS_IN_INT8
from tests.exports.seeding import seed_weights
from tests.zoo.comparison import Difference, compare

VOCABULARY = 64
PROMPT = 5  # tokens
STEPS = 3  # after the prompt, one token each
POSITIONS = 64
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Generated:
    """A decoder as the builder writes it.

    Attributes:
        name: of the file.
        kind: class of transformers of the checkpoint.
        settings: of the checkpoint, beside COMMON.
        precision: of the builder.
        options: extra options of the builder, KEY=VALUE.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    options: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float | None:
        """Of the answers; see Deployed."""
        exact = self.precision == "fp32" or {*EXACT, "use_qdq=true"} & {*self.options}
        return None if exact else ACTIVATIONS_IN_INT8

    def path(self) -> Path:
        """Return the file in the cache, which must not be changed."""

        def write(folder: Path) -> None:
            checkpoint = folder / "checkpoint"
            save_checkpoint(self, checkpoint)
            build(self, checkpoint, folder)

        return exporting.cached(key(__name__, repr(self)), write) / "model.onnx"


def save_checkpoint(file: Generated, folder: Path) -> None:
    """Write a seeded checkpoint and a tokenizer, as from_pretrained reads them."""
    import transformers  # takes seconds; not when the tests are collected
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    chosen = getattr(transformers, file.kind)
    settings = chosen.config_class(**_settings(file.settings))
    model = chosen(settings)
    seed_weights(model)
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<pad>")),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    tokenizer.save_pretrained(folder)


def _settings(own: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a checkpoint; those of a model that sees are in a part of them."""
    if "text_config" in own:
        return {**own, "text_config": {**COMMON, **own["text_config"]}}
    return {**COMMON, **own}


def build(file: Generated, checkpoint: Path, folder: Path) -> None:
    """Run the builder in this process; what it prints is not for the tests."""
    from onnxruntime_genai.models import builder

    place = ("", str(checkpoint), str(folder), file.precision, "cpu", str(folder / "cache"))
    with quiet():
        options = builder.parse_extra_options(*place, list(file.options))
        builder.create_model(*place, **options)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of a package whose versions the tests do not choose
        yield


def calls(path: Path, answer: Callable[[Feeds], list[Any]]) -> Iterator[tuple[Feeds, list[Any]]]:
    """Yield the inputs and outputs of a prompt and of the steps after it.

    Args:
        path: of the file.
        answer: runs it; what it returns as `present` are the inputs `past` of the next call.
    """
    model = onnx.load(path, load_external_data=False)
    types = {i.name: i.type.tensor_type for i in model.graph.input}
    outputs = [o.name for o in model.graph.output]
    generator = np.random.default_rng(0)
    sizes = _sizes(path)
    state = {name: _empty(kind, sizes) for name, kind in types.items() if name.startswith("past")}
    done = 0
    for count in (PROMPT, *[1] * STEPS):
        total = done + count
        offered = {
            "input_ids": generator.integers(3, VOCABULARY, (1, count)),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": _positions(types, done, total),
        }
        feeds = {**{name: x for name, x in offered.items() if name in types}, **state}
        found = answer(feeds)
        yield feeds, found
        named = dict(zip(outputs, found, strict=True))
        state = {n: named[f"present.{n.partition('.')[2]}"] for n in state}
        done = total


def _positions(types: dict[str, Any], start: int, end: int) -> np.ndarray:
    """Return positions of tokens: [1, n], or [3, 1, n] of a model that sees."""
    axes = len(types["position_ids"].shape.dim) if "position_ids" in types else 2
    found = np.arange(start, end)[None]
    return found if axes == 2 else np.broadcast_to(found, (3, *found.shape)).copy()


def _sizes(path: Path) -> dict[str, int]:
    """Return the sizes that the names of dimensions stand for before the first call."""
    decoder = json.loads((path.parent / "genai_config.json").read_text())["model"]["decoder"]
    window = decoder.get("sliding_window", {}).get("window_size", 0)
    return {
        "batch_size": 1,
        "kv_cache_dim": decoder["head_size"],
        "past_sequence_length": 0,
        "past_sliding_length": window,
    }


def _empty(kind: onnx.TypeProto.Tensor, sizes: dict[str, int]) -> np.ndarray:
    shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in kind.shape.dim]
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def answers(path: Path) -> list[tuple[Feeds, list[Any]]]:
    """Return onnxruntime's outputs for a prompt and the steps after it, with their inputs."""
    session = judging.session(path)
    return list(calls(path, lambda feeds: session.run(None, feeds)))


def difference(module: OnnxModule, wanted: list[tuple[Feeds, list[Any]]]) -> Difference:
    """Return the worst difference over all calls, each with onnxruntime's own state."""
    found = []
    with torch.no_grad():
        for feeds, _ in wanted:
            outputs = module(*(torch.from_numpy(feeds[name]) for name in module.input_names))
            found.append([output.numpy() for output in outputs])
    return compare(found, [outputs for _, outputs in wanted])


EXACT = ("accuracy_level=1",)  # the builder's own choice is 4: activations in int8
WINDOW = {"sliding_window": 4}  # less than the prompt: onnxruntime leaves the rest of one undefined
HEADS = {"head_dim": 16}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "wide": ("LlamaForCausalLM", {"intermediate_size": 128}),  # k-quant wants whole blocks
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", HEADS),
    "mistral": ("MistralForCausalLM", WINDOW),
    "gemma": ("GemmaForCausalLM", HEADS),
    "gemma2": ("Gemma2ForCausalLM", {**HEADS, **WINDOW}),
    "phi3": ("Phi3ForCausalLM", {"original_max_position_embeddings": POSITIONS}),
    "phi": ("PhiForCausalLM", {"partial_rotary_factor": 0.5, "num_attention_heads": 2}),
    "granite": ("GraniteForCausalLM", {}),
    "olmo": ("OlmoForCausalLM", {}),
    "nemotron": ("NemotronForCausalLM", {"num_attention_heads": 2}),
    "smollm3": ("SmolLM3ForCausalLM", {}),
    "ernie": ("Ernie4_5ForCausalLM", HEADS),
    "hunyuan": ("HunYuanDenseV1ForCausalLM", HEADS),
    "lfm2": ("Lfm2ForCausalLM", {"layer_types": ["conv", "full_attention"]}),
    "lfm2_moe": (
        "Lfm2MoeForCausalLM",
        {
            **EXPERTS,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_hidden_layers": 3,
            "num_experts": 4,
            "num_dense_layers": 1,
        },
    ),
}
LINEAR = {
    **HEADS,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
SEEING = {
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
    },
}
SHARED_EXPERT = {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32}
ARCHITECTURES |= {
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", {**SEEING, "text_config": LINEAR}),
    "qwen3_5_moe": (
        "Qwen3_5MoeForConditionalGeneration",
        {**SEEING, "text_config": {**LINEAR, **SHARED_EXPERT}},
    ),
}
VARIANTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "asymmetric": ("llama", "int4", ("is_symmetric=false", *EXACT)),
    "block_16": ("llama", "int4", ("block_size=16", *EXACT)),
    "rtn": ("llama", "int4", ("algo_config=rtn", *EXACT)),
    "k_quant_mixed": ("wide", "int4", ("algo_config=k_quant_mixed", *EXACT)),
    "level_4": ("llama", "int4", ()),
    "int8": ("qwen2", "int8", EXACT),
    "qdq": ("llama", "int4", ("use_qdq=true",)),
    "separate": ("llama", "fp32", ("fuse_qkv=false",)),
    "hidden_states": ("llama", "fp32", ("include_hidden_states=true",)),
    "no_head": ("llama", "fp32", ("exclude_lm_head=true",)),
    "last_token": ("llama", "fp32", ("prune_lm_head=true",)),
    "gather": ("phi3", "int4", ("op_types_to_quantize=MatMul/Gather", *EXACT)),
    "full_cache": ("gemma2", "fp32", ("windowed_kv_cache=false",)),
}
FILES = (
    *(Generated(f"{name}_fp32", *found) for name, found in ARCHITECTURES.items()),
    *(Generated(f"{name}_int4", *found, "int4", EXACT) for name, found in ARCHITECTURES.items()),
    Generated(
        "gpt_oss_fp32",
        "GptOssForCausalLM",
        {**HEADS, **EXPERTS, **WINDOW, "num_local_experts": 4},
    ),
    *(
        Generated(f"{base}_{name}", *ARCHITECTURES[base], precision, options)
        for name, (base, precision, options) in VARIANTS.items()
    ),
)
