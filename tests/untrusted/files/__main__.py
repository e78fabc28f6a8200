"""Try cases by hand, the broken ones in full.

python -m tests.untrusted.files 'arithmetic/Div*' [-v]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from tests.untrusted.files.collection import FAMILIES, cases
from tests.untrusted.files.judging import COLUMNS
from tests.untrusted.files.pool import Pool

if __name__ == "__main__":
    patterns = [a for a in sys.argv[1:] if a != "-v"]
    with tempfile.TemporaryDirectory() as folder, Pool(Path(folder)) as pool:
        for group in FAMILIES:
            chosen = [c for c in cases(group) if any(fnmatchcase(c.name, p) for p in patterns)]
            if not chosen:
                continue
            start = time.perf_counter()
            verdicts = pool.run(chosen)
            print(group, "slowest:", sorted(pool.seconds_of.items(), key=lambda i: -i[1])[:8])
            pool.seconds_of.clear()
            for verdict in verdicts:
                if "-v" in sys.argv or not verdict.fine:
                    print(verdict)
            counts = Counter(v.column for v in verdicts)
            line = ", ".join(f"{counts[c]} {c}" for c in COLUMNS if counts[c])
            print(f"{group}: {len(chosen)}: {line}; {time.perf_counter() - start:.1f} s")
