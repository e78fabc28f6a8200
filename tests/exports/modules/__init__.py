"""The networks: one file each, the network above, the Case that says how to export it below."""

from tests.exports.modules.decoder import DECODER
from tests.exports.modules.encoder import ENCODER
from tests.exports.modules.segmentation import SEGMENTATION
from tests.exports.modules.sequence_to_sequence import SEQUENCE_TO_SEQUENCE
from tests.exports.modules.speech import SPEECH
from tests.exports.modules.tagger import TAGGER

CASES = (ENCODER, DECODER, SEQUENCE_TO_SEQUENCE, SPEECH, SEGMENTATION, TAGGER)

__all__ = [
    "CASES",
    "DECODER",
    "ENCODER",
    "SEGMENTATION",
    "SEQUENCE_TO_SEQUENCE",
    "SPEECH",
    "TAGGER",
]
