"""The benchmark runs and prints what it says."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "benchmarks" / "bench.py"


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH), "--quick", "--json", str(tmp_path / "bench.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "bench.json").read_text())["latent_dim"].values()
    for ratio in ("a/b", "a/c", "l/b", "c/d", "d/e"):
        one, other = (result[loop]["rounds_ms"] for loop in ratio.split("/"))
        median, low, high = result["ratios"][ratio]
        assert median == pytest.approx(statistics.median(x / y for x, y in zip(one, other, strict=True)))
        assert low <= median <= high
        assert f"{ratio} = {median:.2f} ({low:.2f} to {high:.2f})" in done.stdout
    # Three times the forward pass of the chapter's network: 2 × multiply-adds of its layers, for 128 images.
    assert 4e9 < result["e"]["flops_per_step"] < 6e9
