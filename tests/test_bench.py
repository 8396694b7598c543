"""The benchmark runs and prints what it says."""

import json
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
    for ratio in ("a/b", "a/c", "c/d", "d/e"):
        one, other = ratio.split("/")
        assert result["ratios"][ratio] == pytest.approx(result[one]["step_ms"] / result[other]["step_ms"])
        assert f"{ratio} = {result['ratios'][ratio]:.2f}" in done.stdout
    # Three times the forward pass of the chapter's network: 2 × multiply-adds of its layers, for 128 images.
    assert 4e9 < result["e"]["flops_per_step"] < 6e9
