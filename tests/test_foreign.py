"""What is foreign is data: never markup, mathematics, or a record of our own."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml

from gen.metrics.plots import plot_attention, plot_looks, plot_runs
from gen.training.run_folder import RunFolder

ODD = ["$$", "a$b$", "$x^2", "\\frac", "[/x]"]


def test_dollar_signs_are_no_mathematics_in_plots(tmp_path):
    for end in ("png", "svg"):
        plot_attention(np.full((5, 5), 0.2), ODD, ODD, tmp_path / f"a.{end}", title="$$")
        plot_looks(np.zeros((8, 8, 3), np.uint8), np.full((5, 4), 0.25), ODD, tmp_path / f"b.{end}")
        plot_runs({name: [{"seconds": 1, "validation": {"loss": 1.0}}] for name in ODD}, tmp_path / f"c.{end}")
    assert len(list(tmp_path.iterdir())) == 6


def test_samples_are_no_records(tmp_path):
    run = RunFolder(tmp_path, {})
    run.log({"step": 1, "seconds": 0.0, "samples": run.add_samples(1, "first", "## Step ,, \n## Step 999, x")})
    kept = (tmp_path / "samples.md").read_bytes()
    run.log({"step": 2, "seconds": 1.0, "samples": run.add_samples(2, "second", "## Step 1, again")})
    run.forget_after(1)
    assert (tmp_path / "samples.md").read_bytes() == kept
    assert [record["step"] for record in run.records()] == [1]
    run.forget_after(0)
    assert (tmp_path / "samples.md").read_bytes() == b""


@pytest.mark.parametrize("training", [5, {"train": 5, "reasons": 3, "versions": [1]}, {"command": "[/x] $$"}])
def test_metadata_of_any_form_is_shown_as_it_is(gen, trained, tmp_path, training):
    folder = tmp_path / "foreign"
    shutil.copytree(trained / "best", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["training"] = training
    config["metrics"] = {"[red]loss[/red]": "[/x]", "seconds": "soon"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    status, out, err = gen("info", folder)
    if not isinstance(training, dict):
        assert status == 2
        assert len(err.splitlines()) == 1
        return
    assert status == 0, err
    assert "[red]loss[/red]" in out
    assert "[/x]" in out
