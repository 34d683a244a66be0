"""Is the end the same, whenever the loop is killed? `bayescale tighten`, killed at random moments.

    python -m tests.benchmarks.killed [TIMES]

The test suite's small loop runs once whole. Then, each time in a folder of its own, it is killed (SIGKILL)
at a moment drawn uniformly over that time, started again, and its end compared with the whole one's: rounds,
records, check.
"""

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.test_tighten import START, start, state


def main(times: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "start.toml").write_text(START)
        began = time.perf_counter()
        start(folder / "whole").communicate()
        seconds = time.perf_counter() - began
        print(f"whole: {seconds:.0f} s", flush=True)
        rng, killed, same = np.random.default_rng(0), 0, 0
        while killed < times:
            moment, place = rng.uniform(0, seconds), folder / f"killed-{killed}"
            process = start(place)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode != -signal.SIGKILL:  # it had ended before
                shutil.rmtree(place)
                continue
            found = len(list(place.glob("*")))
            start(place).communicate()
            agrees = state(place) == state(folder / "whole")
            killed, same = killed + 1, same + agrees
            print(f"killed after {moment:4.1f} s, {found} files; the same end: {agrees}", flush=True)
        print(f"the same end in {same} of {times}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
