"""Run a coverage-guided fuzzer on a target: `python tests/fuzz/run.py TARGET [-max_total_time=SECONDS …]`."""

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT / "addon"), str(_ROOT / "tests")]

with atheris.instrument_imports(include=["mitm_gateway"]):
    from fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Collect the seeds in a folder to which the fuzzer adds its findings."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        for number, seed in enumerate(SEEDS[name]):
            shutil.copy(seed, Path(folder) / f"{number}-{seed.name}")
        # A single input may take 5 s at most; what is tried has 8 kB at most.
        limits = ["-timeout=5", "-max_len=8192", "-print_final_stats=1", f"-artifact_prefix={name}-"]
        atheris.Setup([sys.argv[0], *limits, *options, folder], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
