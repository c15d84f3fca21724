"""Cross-entropy in pieces, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gen.models import cross_entropy as module
from gen.models.cross_entropy import cross_entropy

PAD = 3


def case(dtype=torch.float32, rows=4, length=9, vocabulary=50):
    made = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(rows, length, vocabulary, generator=made)
    target_ids = torch.randint(vocabulary, (rows, length), generator=made)
    target_ids[:, ::5] = PAD
    return logits.to(dtype).requires_grad_(), target_ids


def reference(logits, target_ids, smoothing):
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        target_ids.flatten(),
        ignore_index=PAD,
        reduction="sum",
        label_smoothing=smoothing,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [7, 200, 1 << 19])  # less than a row, some rows, all of them
def test_loss_and_gradient_are_those_of_torch(monkeypatch, smoothing, dtype, at_once):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    logits, target_ids = case(dtype)
    loss = cross_entropy(logits, target_ids, PAD, smoothing)
    expected = reference(logits, target_ids, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    (found,) = torch.autograd.grad(3 * loss, logits)
    (wanted,) = torch.autograd.grad(3 * expected, logits)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [7, 400, 1 << 19])  # less than a pair, some pairs, all of them
def test_twins_are_drawn_together(monkeypatch, dtype, at_once):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    logits, target_ids = case(dtype)
    target_ids[1::2] = target_ids[::2]
    loss = cross_entropy(logits, target_ids, PAD, 0.1, r_drop=3.0)
    exact = logits.float()
    p, q = exact.log_softmax(-1).unflatten(0, (-1, 2)).unbind(1)
    apart = F.kl_div(q, p, reduction="none", log_target=True) + F.kl_div(p, q, reduction="none", log_target=True)
    real = (target_ids[::2] != PAD)[..., None]
    expected = reference(exact, target_ids, 0.1) + 3 / 2 * (apart * real).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    (found,) = torch.autograd.grad(loss / 2, logits)
    (wanted,) = torch.autograd.grad(expected / 2, logits)
    torch.testing.assert_close(found, wanted, rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-5)


@pytest.mark.parametrize("r_drop", [0.0, 3.0])
def test_without_a_gradient_the_loss_is_the_same(r_drop):
    logits, target_ids = case()
    loss = cross_entropy(logits, target_ids, PAD, 0.1, r_drop)
    with torch.no_grad():
        assert cross_entropy(logits, target_ids, PAD, 0.1, r_drop) == loss.detach()


def test_padding_alone_costs_nothing():
    logits, target_ids = case()
    loss = cross_entropy(logits, torch.full_like(target_ids, PAD), PAD)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_small_gradients_of_float16_live_until_they_are_scaled():
    logits, target_ids = case(torch.float16)
    with torch.no_grad():
        logits[..., -1] = logits[..., :-1].float().logsumexp(-1) - 18  # float16 has no number for e⁻¹⁸
    (16 * cross_entropy(logits, target_ids, PAD)).backward()
    (wanted,) = torch.autograd.grad(16 * reference(logits, target_ids, 0.0), logits)
    assert wanted[..., -1].any()
    torch.testing.assert_close(logits.grad, wanted, rtol=1e-2, atol=1e-7)
