"""Text generation in one node: onnxruntime's search operators, which run a decoder in a loop.

    beam        BeamSearch
    hypotheses  the finished sequences of a beam search
    whisper     WhisperBeamSearch
    greedy      GreedySearch, Sampling
    logits      the rules that change scores before a token is chosen
    decoders    the subgraphs: GPT-2's decoder; encoder and decoder of T5 and Whisper
    graphs      small subgraphs for the samples

onnxruntime's convert_generation.py writes these nodes. The subgraphs are called in eager mode until
all sequences have ended, so the number of calls depends on data.
"""

from onnxinterp.ops.contrib.search import beam, greedy, whisper

__all__ = ["beam", "greedy", "whisper"]
