"""Text of decoder-only language models, token by token.

generation   `generate` and `stream`: the loop over steps
options      their arguments, checked
model        what is called, and the graph inside
layout       which inputs and outputs of a graph are tokens, mask, positions, cache and logits
decoder      the prompt and the steps of a batch
cache        the cache before the prompt
logits       repetition penalty, temperature, top-k and top-p, as Hugging Face defines them
stopping     which rows have ended: by token or by string
text         tokens that become text one by one
defaults     the end and the padding token, from the configuration beside a model
"""

from onnxinterp.generation.generation import generate, stream
from onnxinterp.generation.layout import Layout, layout_of
from onnxinterp.generation.text import Detokenizer

__all__ = ["Detokenizer", "Layout", "generate", "layout_of", "stream"]
