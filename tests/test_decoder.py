"""The decoder's one promise: T tokens at once are T calls on one token, whatever is inside."""

from __future__ import annotations

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gen.base.errors import UserError
from gen.models.attention import ATTENTIONS, build_attention, masked_softmax
from gen.models.batch import sequence_batch
from gen.models.cells import CELLS
from gen.models.cells.fused import drop_connections
from gen.models.decoder import Decoder, DecoderConfig
from gen.models.memory import Memory
from gen.models.recurrent import RecurrentStack, variational_dropout
from tests.conftest import make_model

V, B, W, T, M = 11, 2, 3, 5, 6


def make_memory(S, M=M):
    mask = torch.arange(S)[None] < torch.tensor([[S], [max(S - 2, 0)]])
    return Memory(torch.randn(B, S, M), mask, torch.randn(B, M))


def make_decoder(memory_size=M, **sizes):
    config = DecoderConfig(V, **{"embedding_size": 8, "hidden_size": 8, "num_layers": 2, **sizes})
    return Decoder(config, memory_size).eval()


def unroll(decoder, token_ids, state, memory):
    """One token at a time: the naive oracle."""
    logits, attention = [], []
    for t in range(token_ids.size(1)):
        output = decoder(token_ids[:, t : t + 1], state, memory)
        state = output.state
        logits.append(output.logits)
        attention.append(output.attention)
    return torch.cat(logits, 1), state, attention


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("S", [0, 4])
@torch.no_grad()
def test_many_tokens_equal_one_at_a_time(cell, attention, layers, S):
    decoder = make_decoder(cell=cell, attention=attention, num_layers=layers, residual=True, layer_norm=True)
    memory = make_memory(S)
    rows = torch.arange(B).repeat_interleave(W)
    state = decoder.init_state(memory).select(rows)
    token_ids = torch.randint(V, (B * W, T))
    at_once = decoder(token_ids, state, memory)
    logits, after, attended = unroll(decoder, token_ids, state, memory)
    torch.testing.assert_close(at_once.logits, logits, atol=1e-5, rtol=1e-5)
    for a, b in zip(itertools.chain(*at_once.state.layers), itertools.chain(*after.layers), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    if attention != "none":
        torch.testing.assert_close(at_once.attention, torch.cat(attended, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_no_encoder_at_all(cell):
    decoder = make_decoder(memory_size=0, cell=cell, attention="dot")
    memory = Memory.empty(B)
    state = decoder.init_state(memory)
    token_ids = torch.randint(V, (B, T))
    at_once = decoder(token_ids, state, memory)
    torch.testing.assert_close(at_once.logits, unroll(decoder, token_ids, state, memory)[0], atol=1e-5, rtol=1e-5)
    assert at_once.attention is None


@pytest.mark.parametrize("cell", [name for name, cell in CELLS.items() if cell.recurrent_weights])
def test_the_kernels_get_contiguous_states(cell):
    """cuDNN refuses others ("rnn: hx is not contiguous"), which no CPU does."""
    decoder, memory, seen = make_decoder(cell=cell), make_memory(4), []
    for layer in [*decoder.lower.layers, *decoder.upper.layers]:
        layer.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[1:]))
    state = decoder.init_state(memory)
    decoder(torch.randint(V, (B, T)), state, memory)
    given = [part for states in seen for part in (states if isinstance(states, tuple) else (states,))]
    assert len(given) == len(list(itertools.chain(*state.layers)))
    assert all(part.is_contiguous() for part in given)


@torch.no_grad()
def test_a_step_sees_new_weights_after_training():
    decoder = make_decoder(memory_size=0)
    memory = Memory.empty(1)
    state = decoder.init_state(memory)
    one = torch.tensor([[3]])
    before = decoder(one, state, memory).logits
    for p in decoder.parameters():
        p.add_(0.1 * torch.randn_like(p))
    after = decoder(one, state, memory).logits
    both = decoder(torch.tensor([[3, 4]]), state, memory).logits[:, :1]  # the fused path
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, both, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["dot", "additive", "multihead"])
@torch.no_grad()
def test_attention_sums_to_one_and_never_sees_padding(attention):
    decoder = make_decoder(attention=attention)
    memory = make_memory(5)
    token_ids = torch.randint(V, (B, T))
    output = decoder(token_ids, decoder.init_state(memory), memory)
    torch.testing.assert_close(output.attention.sum(-1), torch.ones(B, T))
    assert (output.attention[1, :, 3:] == 0).all()
    padding = memory.values.clone()
    padding[1, 3:] = 1e4
    other = Memory(padding, memory.mask, memory.summary)
    torch.testing.assert_close(decoder(token_ids, decoder.init_state(other), other).logits, output.logits)


def test_softmax_of_nothing_is_zero():
    weights = masked_softmax(torch.randn(2, 3), torch.tensor([[True, True, False], [False] * 3]))
    torch.testing.assert_close(weights.sum(-1), torch.tensor([1.0, 0.0]))
    assert masked_softmax(torch.randn(2, 0), torch.ones(2, 0, dtype=torch.bool)).shape == (2, 0)


@pytest.mark.parametrize("attention", ["dot", "additive", "multihead"])
@torch.no_grad()
def test_rows_of_an_input_share_its_memory(attention):
    """W rows against B memories give what every row gives against a copy of its own."""
    layer = build_attention(attention, 8, M)
    memory = make_memory(4)
    queries = torch.randn(B * W, T, 8)
    rows = torch.arange(B).repeat_interleave(W)
    copied = Memory(memory.values[rows], memory.mask[rows], memory.summary[rows])
    for shared, own in zip(layer(queries, memory), layer(queries, copied), strict=True):
        torch.testing.assert_close(shared, own, atol=1e-6, rtol=1e-5)


def test_tied_embeddings_are_one_matrix():
    decoder = make_decoder(memory_size=0, tie_embeddings=True, embedding_size=6)
    assert decoder.output.weight is decoder.embedding.weight
    memory = Memory.empty(2)
    assert decoder(torch.randint(V, (2, 3)), decoder.init_state(memory), memory).logits.shape == (2, 3, V)


def test_the_summary_makes_the_first_state_and_learns():
    decoder = make_decoder()
    a, b = make_memory(3), make_memory(3)
    assert not torch.allclose(decoder.init_state(a).layers[0][0], decoder.init_state(b).layers[0][0])
    empty = make_decoder(memory_size=0)
    decoder(torch.randint(V, (B, T)), decoder.init_state(a), a).logits.sum().backward()
    memory = Memory.empty(2)
    empty(torch.randint(V, (2, T)), empty.init_state(memory), memory).logits.sum().backward()
    assert decoder.first_state.weight.grad.abs().sum() > 0
    assert empty.first_state_bias.grad.abs().sum() > 0


def test_dropout_keeps_one_mask_a_sequence():
    x = torch.ones(3, 50, 20)
    dropped = variational_dropout(x, 0.5, training=True)
    assert (dropped == dropped[:, :1]).all()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert variational_dropout(x, 0.5, training=False) is x


def test_a_stack_of_no_layers_passes_through():
    stack = RecurrentStack(4, 8, 0)
    x = torch.randn(2, 3, 4)
    outputs, state = stack(x, ())
    assert outputs is x
    assert state == ()


@pytest.mark.parametrize("cell", [name for name, cell in CELLS.items() if cell.recurrent_weights])
def test_dropped_connections_are_dropped_for_all_gates_and_only_in_training(cell):
    weight = torch.ones({"rnn": 1, "gru": 3, "lstm": 4}[cell] * 40, 40)
    dropped = drop_connections(weight, 0.25).view(-1, 40, 40)
    assert (dropped == dropped[0]).all()
    assert 0.15 < float((dropped == 0).float().mean()) < 0.35
    torch.testing.assert_close(dropped.mean(), torch.tensor(1.0), atol=0.1, rtol=0)
    stack = RecurrentStack(4, 8, 2, cell, weight_dropout=0.5)
    plain = RecurrentStack(4, 8, 2, cell)
    plain.load_state_dict(stack.state_dict())
    x = torch.randn(2, 5, 4)
    outputs, _ = stack(x, stack.zero_state(2))
    outputs.sum().backward()
    assert all(p.grad is not None for p in stack.parameters())
    expected, _ = plain(x, plain.zero_state(2))
    assert not torch.allclose(outputs, expected)
    torch.testing.assert_close(stack.eval()(x, stack.zero_state(2))[0], expected)


def test_a_step_follows_the_optimizer(tokenizer):
    """What a search step computes with is never older than the weights, whichever optimizer changed them."""
    model = make_model(tokenizer)
    batch = sequence_batch({"prompt": torch.zeros(1)}, [tokenizer.encode_array("the cat")], 1, 2, 0)
    for fused in (True, False):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=fused)
        for _ in range(3):
            model.train()
            optimizer.zero_grad()
            model.loss(batch).loss_sum.backward()
            optimizer.step()
            # A written text has the score that one pass over it gives.
            written = model.generate("the ", temperature=0, max_new_tokens=6)[0]
            model.eval()
            whole = model.score(["the " + written.text])[0].log_probs[4:10]
            assert written.log_probs == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_a_step_follows_the_weights(cell):
    """One step agrees with the fused kernel after every kind of change to the parameters."""
    stack = RecurrentStack(4, 8, 2, cell).eval()
    x, other = torch.randn(3, 1, 4), RecurrentStack(4, 8, 2, cell)

    def check(stack, dtype=torch.float32):
        x_, state = x.to(dtype), tuple(tuple(s.normal_() for s in layer) for layer in stack.zero_state(3))
        step = stack(x_, state)
        with torch.enable_grad():
            whole = stack(x_, state)
        torch.testing.assert_close(step[0], whole[0].detach(), atol=1e-5, rtol=1e-4)

    check(stack)
    for p in stack.parameters():
        p.mul_(1.5)
    check(stack)
    stack.load_state_dict(other.state_dict())
    check(stack)
    stack.load_state_dict(RecurrentStack(4, 8, 2, cell).state_dict(), assign=True)
    check(stack)
    for _ in range(3):  # the memory of old parameters is never taken for the new ones
        for p in stack.parameters():
            p.data = p.data * 1.2
        check(stack)
    check(stack.double(), torch.float64)
    check(stack.float())
    optimizer = torch.optim.AdamW(stack.parameters(), lr=0.1, fused=True)
    for p in stack.parameters():
        p.grad = torch.randn_like(p)
    stack.train()
    optimizer.step()  # without a new version of any parameter
    check(stack.eval())
    for twin in (copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        for p in twin.parameters():
            p.mul_(0.5)
        check(twin)
        check(stack)


@torch.no_grad()
def test_a_step_in_autocast_and_out_of_it():
    stack = RecurrentStack(4, 8, 2).eval()
    x, state = torch.randn(3, 1, 4), stack.zero_state(3)
    before = stack(x, state)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(stack(x, state)[0].float(), before, atol=0.02, rtol=0)
        assert stack.layers[0]._step_weights.get(stack.layers[0])[0].dtype == torch.bfloat16
    assert torch.equal(stack(x, state)[0], before)


@torch.no_grad()
def test_steps_in_threads():
    stack = RecurrentStack(4, 8, 2).eval()
    x, state = torch.randn(3, 1, 4), stack.zero_state(3)
    wanted = stack(x, state)[0]

    def work(number):
        with torch.no_grad():
            if number % 5 == 0:
                stack.layers[0]._step_weights.clear()
            return torch.equal(stack(x, state)[0], wanted)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(work, range(200)))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="num_heads 3 does not divide hidden_size 8"):
        build_attention("multihead", 8, M, 3)
