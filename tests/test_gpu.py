"""The script for machines with CUDA runs, as far as it can, without."""

from __future__ import annotations

import json

import pytest
import torch

from tests import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA it takes minutes")
def test_the_script_runs_without_cuda(tmp_path):
    out = tmp_path / "gpu.json"
    status = gpu.main([str(out)])
    report = json.loads(out.read_text())
    assert status == 0, report
    assert "skipped" in report["marked_tests"]
    for task in ("text", "translate", "caption"):
        assert report["training"][f"{task} fp32"]["nats"] > 0
        assert "skipped" in report["training"][f"{task} bf16"]
    assert report["recurrent_layers"]["ours fp32"]["outputs"] == "float32"
    assert report["captured_step"]["eager_steps_per_second"] > 0
    assert report["out_of_memory"]["pieces"] == 4
    assert report["budgets"]["text 1s"]["tokens_per_second"] > 0
