"""The operators of com.microsoft that stay without a kernel: why, and what a user can do.

Most of them belong to one device or one serving engine, whose memory layout or protocol is their
meaning.
"""

from onnxinterp.registry import refuse
from onnxinterp.schemas import MICROSOFT

refuse(
    "EPContext",
    "Snpe",
    domain=MICROSOFT,
    advice="it holds a program compiled for one device; use the model before its compilation",
)
refuse(
    "DequantizeWithOrder",
    "QOrderedAttention",
    "QOrderedGelu",
    "QOrderedLayerNormalization",
    "QOrderedLongformerAttention",
    "QOrderedMatMul",
    "QuantizeWithOrder",
    domain=MICROSOFT,
    advice="its matrices are in a layout of cuBLASLt; quantize the float model in the QDQ format",
)
refuse(
    "DynamicSparseAttention",
    "PackedSparseAttentionIndexer",
    "PackedSparseAttentionIndexerMerge",
    "PagedAttention",
    "SparseAttentionIndexer",
    "SparsePagedAttention",
    "SpeculativePrefixCommit",
    domain=MICROSOFT,
    advice="it belongs to the paged cache of a serving engine; export the model with "
    "GroupQueryAttention",
)
refuse(
    "ConvStateReplay",
    "GatedDeltaNetStateReplay",
    "Mamba2Verify",
    domain=MICROSOFT,
    advice="it replays states of a speculative decoder on one device; export the plain decoder",
)
refuse(
    "MatMulPacked",
    "MoEPacked",
    "RouterGateUpProj",
    domain=MICROSOFT,
    advice="its weights are packed for kernels of one GPU; export with MatMulNBits, MoE or QMoE",
)
refuse(
    "DequantizeBFP",
    "GemmFloat8",
    "QuantizeBFP",
    domain=MICROSOFT,
    advice="its numbers are in a format of one device; quantize the float model in the QDQ format",
)
refuse(
    "MatMulFpQ4",
    domain=MICROSOFT,
    advice="its matrix is packed in an undocumented form for a few processors; quantize the float "
    "model with MatMulNBits",
)
refuse(
    "SparseToDenseMatMul",
    domain=MICROSOFT,
    advice="it needs a sparse tensor as an input of the graph; export the model with MatMul, whose "
    "weights may be sparse in the file",
)
