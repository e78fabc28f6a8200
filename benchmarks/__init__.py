"""What the interpreter costs: time over hand-written torch, import time, memory."""
