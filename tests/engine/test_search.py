"""Searches: what onnxruntime does not compute, or only at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from onnxinterp import NodeError, OnnxModule
from onnxinterp.ops.contrib.search.graphs import (
    Vocabulary,
    gpt_decoder,
    t5_graphs,
    whisper_graphs,
)
from tests.programs import assert_same

OWN = Vocabulary(6, 3, 5)
PROMPT = np.array([[1, 2, 3], [4, 1, 2]], np.int32)
NEVER = {"eos_token_id": 9, "pad_token_id": 0}  # no sequence ends


def search(op_type: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """A search whose inputs are constants; ints become int32, floats float32; None is absent."""
    arrays = [
        x if x is None else np.asarray(x, np.float32 if isinstance(x, float) else None)
        for x in inputs
    ]
    arrays = [x if x is None or x.dtype != np.int64 else x.astype(np.int32) for x in arrays]
    names = ["" if x is None else f"x{n}" for n, x in enumerate(arrays)]
    results = [f"y{n}" for n in range(outputs)]
    node = helper.make_node(op_type, names, results, domain="com.microsoft", **attributes)
    held = [numpy_helper.from_array(x, n) for n, x in zip(names, arrays, strict=True) if n]
    infos = [helper.make_empty_tensor_value_info(name) for name in results]
    graph = helper.make_graph([node], "one", [], infos, held)
    imports = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def expected(model: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {}))


def sampled(**attributes: Any) -> Tensor:
    """Many sequences of one more token, all of the same prompt."""
    prompt = np.repeat(PROMPT[:1], 500, 0)
    model = search("Sampling", prompt, 4, decoder=gpt_decoder(OWN), **NEVER, **attributes)
    torch.manual_seed(0)
    return OnnxModule(model)()[:, -1]


def probabilities(temperature: float = 1.0) -> Tensor:
    """Of the token behind the prompt, by a beam of which all are returned."""
    model = search(
        *("BeamSearch", PROMPT[:1], 4, 0, 1, 1, 1.0), outputs=3, decoder=gpt_decoder(OWN), **NEVER
    )
    logs = OnnxModule(model)()[2].reshape(-1)
    return (logs / temperature).softmax(0)


@pytest.mark.parametrize("settings", [{"top_p": 0.01}, {"top_p": 0.01, "custom": 1}, {}])
def test_with_one_token_left_sampling_is_greedy(settings: dict[str, Any]) -> None:
    model = search("Sampling", PROMPT, 9, decoder=gpt_decoder(OWN), **NEVER, **settings)
    greedy = search("GreedySearch", PROMPT, 9, decoder=gpt_decoder(OWN), **NEVER)
    assert_same(OnnxModule(model)(), torch.from_numpy(expected(greedy)[0]))
    if settings:
        assert expected(model)[0].tolist() == expected(greedy)[0].tolist()


@pytest.mark.parametrize("custom", [0, 1])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95])
def test_only_the_most_probable_tokens_are_drawn(
    top_p: float, temperature: float, custom: int
) -> None:
    found = sampled(top_p=top_p, temperature=temperature, custom=custom).unique()
    by_size = probabilities(temperature).sort(descending=True)
    count = int((by_size.values.cumsum(0) < top_p).sum()) + 1
    assert set(found.tolist()) <= set(by_size.indices[:count].tolist())
    assert len(found) == count or by_size.values[count - 1] < 0.05


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_tokens_are_drawn_by_their_probabilities(temperature: float) -> None:
    counts = sampled(top_p=1.0, temperature=temperature).bincount(minlength=6)
    torch.testing.assert_close(counts / 500, probabilities(temperature), atol=0.08, rtol=0)


def test_a_seed_and_the_number_of_tokens_to_keep() -> None:
    few = {"top_p": 0.01, "min_tokens_to_keep": 3}
    assert len(sampled(**few).unique()) == 3
    seeded = search(
        *("Sampling", PROMPT, 9, *[None] * 6, 7), decoder=gpt_decoder(OWN), **NEVER, top_p=1.0
    )
    assert_same(OnnxModule(seeded)(), OnnxModule(seeded)())


def test_a_presence_penalty_is_subtracted() -> None:
    best = int(probabilities().argmax())
    mask = np.zeros((500, 6), np.int32)
    mask[:, best] = 1
    prompt = np.repeat(PROMPT[:1], 500, 0)
    model = search(
        *("Sampling", prompt, 4, *[None] * 5, mask),
        decoder=gpt_decoder(OWN),
        **NEVER,
        top_p=1.0,
        presence_penalty=1000.0,
    )
    assert best not in OnnxModule(model)()[:, -1]


@pytest.mark.parametrize("op_type", ["GreedySearch", "BeamSearch"])
def test_logits_beyond_the_vocabulary_are_padding(op_type: str) -> None:
    """Onnxruntime reads the logits of other positions then."""
    rest = () if op_type == "GreedySearch" else (0, 2, 1, 1.0)
    wide, narrow = gpt_decoder(OWN), gpt_decoder(OWN)
    for tensor in narrow.initializer:
        if tensor.name == "head":
            head = numpy_helper.to_array(tensor)[:, :5]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(head), "head"))
    narrow.output[0].type.tensor_type.shape.dim[2].dim_value = 5
    padded = search(op_type, PROMPT, 9, *rest, decoder=wide, **NEVER, vocab_size=5)
    want = expected(search(op_type, PROMPT, 9, *rest, decoder=narrow, **NEVER))
    assert_same(OnnxModule(padded)(), torch.from_numpy(want[0]))


def test_the_scores_have_gradients() -> None:
    """Those of the sum of the logarithms of the probabilities of the tokens."""
    model = search(
        *("BeamSearch", PROMPT, 6, 0, 2, 1, 1.0), outputs=2, decoder=gpt_decoder(OWN), **NEVER
    )
    module = OnnxModule(model).double()
    head = dict(module.named_parameters())["head"]

    def total(values: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"head": values}, ())[1].sum()

    assert torch.autograd.gradcheck(total, (head,), fast_mode=True)


def test_the_probability_of_silence() -> None:
    features = np.ones((2, 3, 2), np.float32)
    model = search(
        *("WhisperBeamSearch", features, 5, 0, 1, 1, 1.0),
        outputs=3,
        **whisper_graphs(OWN, False),
        **NEVER,
        decoder_start_token_id=1,
        no_speech_token_id=2,
    )
    node, scores = model.graph.node[0], OnnxModule(model)()[2]
    node.output.extend(["", "silence"])
    model.graph.output.append(helper.make_empty_tensor_value_info("silence"))
    assert_same(OnnxModule(model)()[3], scores[0, :, 0, 2].exp(), tolerance=1e-6)


def test_whisper_without_the_scores_of_its_attention() -> None:
    features = np.ones((1, 3, 2), np.float32)
    graphs = whisper_graphs(OWN, False)
    model = search(
        *("WhisperBeamSearch", features, 5, 0, 1, 1, 1.0),
        **graphs,
        **NEVER,
        decoder_output_cross_qk=1,
    )
    with pytest.raises(NodeError, match="cross_qk is not supported"):
        OnnxModule(model)()


def test_one_token_of_t5() -> None:
    """Onnxruntime does not run the decoder then; the token is the first of a longer search."""
    graphs = t5_graphs(OWN, False, False)
    common: dict[str, Any] = {**graphs, **NEVER, "model_type": 1, "decoder_start_token_id": 1}
    rest = (0, 1, 1, 1.0)
    short = OnnxModule(search("BeamSearch", PROMPT, 2, *rest, **common))()
    long = expected(search("BeamSearch", PROMPT, 5, *rest, **common))[0]
    assert short.tolist() == long[..., :2].tolist()
