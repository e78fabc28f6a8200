"""Speed of whole models in several engines, interleaved in one process."""
