"""Layers split over real processes: outputs, bytes kept and sent, and how a failure ends."""

import itertools
import os
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from attnlib import MODELS, Geometry, Rope, SlidingWindowAttention, cache_size
from attnlib.blocks import merge
from attnlib.core import merge_heads
from attnlib.labs import devices
from attnlib.labs.devices import Group, Share
from attnlib.layers import SPLITS
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch has no distributed")

B, T, H, D, D_MODEL = 2, 7, 12, 4, 22  # of what runs in this process
DYING = """
    import os, sys, time
    if os.environ["RANK"] == "1":
        sys.exit("rank one has had enough")
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
"""


RAISING = """
    import os, time
    if os.environ["RANK"] == "1":
        raise ValueError("no head is left")
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """All that this file starts, at the same time: a launcher that starts uses one core."""
    folder = tmp_path_factory.mktemp("ranks")
    script, pid = folder / "dying.py", folder / "pid"
    script.write_text(textwrap.dedent(DYING))
    (raising := folder / "raising.py").write_text(textwrap.dedent(RAISING))
    with ThreadPoolExecutor() as pool:
        four, two = pool.submit(devices.run_on, 4), pool.submit(devices.run_on, 2)
        dying = pool.submit(devices.launch, [str(script), str(pid)], 2)
        copied = pool.submit(devices.launch, [*devices.AS_COPIES, str(raising)], 2)
        yield {4: four, 2: two, "dying": dying, "pid": pid, "raising": copied}


@pytest.fixture(params=[2, 4])
def report(request, launches):
    return launches[request.param].result()


def sizes_of(name):
    return devices.sizes_of(devices.example_layer(name))


def test_every_rank_has_the_output_of_one_device(report):
    """Catches a head cut at the wrong row, a position off by one, and a rank left out."""
    cases = itertools.product(devices.KV_HEADS, SPLITS, range(report.ranks))
    assert [(s.layer, s.split, s.rank) for s in report.shares] == list(cases)
    assert max(share.difference for share in report.shares) < 1e-6
    assert report.backend in ("gloo", "nccl")


def test_the_stored_bytes_are_those_of_the_rule(report):
    """Catches KV heads copied too often, and a part as large as the whole cache."""
    for share in report.shares:
        options = {"batch_size": report.batch_size, "dtype": "float32", "split": share.split}
        rule = cache_size(sizes_of(share.layer), 14, devices=report.ranks, **options)
        assert share.stored_bytes == rule.per_device, share


def test_the_sent_bytes_are_those_of_the_formula(report):
    """Catches a collective that the formula forgets, in prefill and in decode."""
    for share in report.shares:
        options = {"devices": report.ranks, "split": share.split, "dtype": "float32"}
        options |= {"batch_size": report.batch_size}
        prompt, step = (
            devices.sent_bytes(sizes_of(share.layer), tokens, **options) for tokens in (11, 1)
        )
        assert (share.prefill_sent_bytes, share.sent_bytes) == (prompt, step), share


def test_sent_bytes_by_hand(report):
    """Catches a factor that counted bytes and the formula share: 4 sequences, float32."""
    N = report.ranks
    sent = {(s.layer, s.split): s.sent_bytes for s in report.shares}
    assert sent["MHA", "heads"] == sent["MLA", "heads"] == 2 * (N - 1) * 4 * 64 * 4 // N
    assert sent["GQA-2", "sequences"] == (N - 1) * 4 * 64 * 4 // N
    assert sent["MQA", "positions"] == (N - 1) * 4 * 8 * (16 + 1) * 4
    assert sent["MLA", "positions"] == (N - 1) * 4 * 8 * (16 + 1) * 4


def test_the_mean_of_parts_is_wrong(report):
    """Catches a comparison that every output passes."""
    for share in report.shares:
        if share.split == "positions":
            assert share.mean_difference > 0.3
        else:
            assert share.mean_difference is None


def test_a_table_has_a_line_for_each_share(report):
    lines = report.describe().splitlines()
    assert len(lines) == len(report.shares) + 2
    assert lines[1].split()[:3] == ["MHA", "heads", "0"]


def test_a_rank_that_fails_ends_all(launches):
    """Catches a run that waits for a rank that is gone, and a rank that is left behind."""
    with pytest.raises(RuntimeError, match="rank 1: rank one has had enough"):
        launches["dying"].result(timeout=120)
    if launches["pid"].exists():  # the other one would have slept for minutes
        with pytest.raises(ProcessLookupError):
            os.kill(int(launches["pid"].read_text()), 0)


def test_what_a_copy_of_the_launcher_raises_is_told(launches):
    """Catches an exception that the launcher keeps in a file of its own."""
    with pytest.raises(RuntimeError, match="rank 1: ValueError: no head is left"):
        launches["raising"].result(timeout=120)


def test_time_that_is_up_ends_the_launcher(tmp_path, monkeypatch):
    """Catches a launcher that lives on; the real one ends its ranks on the same signal."""
    script, pid = tmp_path / "launcher.py", tmp_path / "pid"
    script.write_text(textwrap.dedent(DYING))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(devices, "ENGINE", (sys.executable, str(script), str(pid)))
    with pytest.raises(RuntimeError, match=r"2 ranks must end within 1\.5 s, and were ended"):
        devices.launch([], 2, timeout=1.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_launcher_that_fails_without_ranks_says_why(monkeypatch):
    """Catches a message without a reason, such as where no port is free."""
    code = "import sys; sys.exit('no port is free')"
    monkeypatch.setattr(devices, "ENGINE", (sys.executable, "-c", code))
    with pytest.raises(RuntimeError, match="no port is free"):
        devices.launch([], 2)


@pytest.mark.parametrize("wrong", [2e-6, 0.5, float("nan"), float("inf")])
def test_a_rank_that_disagrees_is_named(wrong):
    """Catches a NaN that compares as small."""
    shares = [Share("MQA", "heads", rank, 1, 1, 1, 1, 9e-7) for rank in range(3)]
    devices.check_agreement(shares)
    shares[1] = shares[1]._replace(difference=wrong)
    with pytest.raises(RuntimeError, match=r"rank 1 must .* \(MQA, by heads\)"):
        devices.check_agreement(shares)


# What follows needs no other process.


def layers_to_split():
    torch.manual_seed(0)
    heads = {"head_dim": D, "rope": Rope(), "bias": True}
    latent = {"kv_lora_rank": 13, "qk_nope_head_dim": 8, "qk_rope_head_dim": 6}
    found = {
        f"GQA-{n}": GroupedQueryAttention(D_MODEL, H, n, **heads) for n in (1, 2, 3, 4, 6, 12)
    }
    found["MHA"] = MultiHeadAttention(D_MODEL, H, **heads)
    found["MQA"] = MultiQueryAttention(D_MODEL, H, **heads)
    found["MLA"] = MultiHeadLatentAttention(D_MODEL, H, **latent, v_head_dim=9)
    found["MLA, queries too"] = MultiHeadLatentAttention(
        D_MODEL, H, **latent, v_head_dim=15, q_lora_rank=11
    )
    return {name: layer.double() for name, layer in found.items()}


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        (name, ranks)
        for name, layer in layers_to_split().items()
        for ranks in (1, 2, 4, 6, 12)
        if not (layer.n_kv_heads % ranks and ranks % layer.n_kv_heads)
    ],
)
def test_parts_by_heads_add_up(name, ranks):
    """Catches wrong slices, KV heads of another group, and a bias that is added N times."""
    layer = layers_to_split()[name]
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64)
    total = 0
    for rank in range(ranks):
        part = devices.part_by_heads(layer, rank, ranks)
        assert (part.n_heads, part.o_proj.in_features) == (
            H // ranks,
            part.o_proj.weight.shape[1],
        )
        cache = part.new_cache(B, T)
        total = total + torch.cat([part(x[:, :5], cache), part(x[:, 5:], cache)], dim=1)
    assert (total - layer(x)).abs().max() < 1e-12


@pytest.mark.parametrize("prompt", [1, 2, 6])
@pytest.mark.parametrize("name", layers_to_split())
def test_parts_by_positions_merge(name, prompt):
    """Catches a rank without a single position, and positions that are a rank's own."""
    layer, ranks = layers_to_split()[name], 4
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64)
    splits = [devices.SplitByPositions(layer, Group(rank, ranks)) for rank in range(ranks)]
    caches = [split.new_cache(B, T) for split in splits]
    outs = []
    for new in x.split([prompt] + [1] * (T - prompt), dim=1):
        parts = [s.attend_part(new, cache) for s, cache in zip(splits, caches, strict=True)]
        outs.append(layer.o_proj(merge_heads(merge(*zip(*parts, strict=True))[0])))
    assert (torch.cat(outs, dim=1) - layer(x)).abs().max() < 1e-12
    assert [cache.kept for cache in caches] == [2, 2, 2, 1]
    assert {cache.seen for cache in caches} == {T}
    with pytest.raises(ValueError, match="capacity must be at least 8, got 7"):
        caches[3].update(x[:, :1])  # this rank's own part has room for one more


def test_copies_at_eight_ranks():
    """Catches replication that does not follow 8, 4, 2 and 1 KV heads, and a divided latent."""
    copies = {}
    for name in devices.KV_HEADS:
        layer, total = devices.example_layer(name), 0
        for rank in range(8):
            total += devices.part_by_heads(layer, rank, 8).new_cache(B, T).nbytes
        copies[name] = total / layer.new_cache(B, T).nbytes
    assert copies == {"MHA": 1, "GQA-4": 2, "GQA-2": 4, "MQA": 8, "MLA": 8}


@pytest.mark.parametrize(("n_kv_heads", "owners"), [(2, [0, 0, 1, 1]), (1, [0] * 4)])
def test_which_kv_head_is_copied_where(n_kv_heads, owners):
    """Catches copies dealt in turns: neighbours share a head, as their query heads do."""
    layer = GroupedQueryAttention(D_MODEL, 8, n_kv_heads, head_dim=D)
    heads = layer.k_proj.weight.view(n_kv_heads, D, D_MODEL)
    for rank, owner in enumerate(owners):
        part = devices.part_by_heads(layer, rank, 4)
        assert torch.equal(part.k_proj.weight, heads[owner])
    assert layer.k_proj.out_features == n_kv_heads * D, "the whole layer stays as it is"


@pytest.mark.parametrize("name", devices.KV_HEADS)
@pytest.mark.parametrize("split", ["heads", "positions"])
def test_flops_are_those_that_run(name, split):
    """Catches projections that are counted as divided; FlopCounterMode sees every product."""
    layer, group, x = devices.example_layer(name), Group(1, 4), torch.randn(B, T, 64)
    share = devices.WAYS[split](layer, group)
    call = share.part if split == "heads" else share.attend_part
    cache = share.new_cache(B, T)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call(x[:, :-1], cache)
        with FlopCounterMode(display=False) as counter:
            out = call(x[:, -1:], cache)
            if split == "positions":
                layer.o_proj(merge_heads(out[0]))
    more = 0
    if (name, split) == ("MLA", "heads"):  # it sums over rows, rotary part included, and cuts
        more = 2 * B * share.part.n_heads * T * layer.qk_rope_head_dim
    formula = devices.step_flops(layer, split, group, T, B)
    assert counter.get_total_flops() == formula + more


def test_flops_of_sequences():
    layer = devices.example_layer("GQA-2")
    one = devices.step_flops(layer, "sequences", Group(0, 1), T, 1)
    assert devices.step_flops(layer, "sequences", Group(1, 2), T, 6) == 3 * one


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 4, 3), "n_heads must be a multiple of the number of devices, 3, got 8"),
        ((12, 4, 6), "divisor of the number of devices, 6, got 4; vLLM and SGLang refuse"),
        ((12, 6, 4), "divisor of the number of devices, 4, got 6"),
        ((8, 3, 2), "n_heads must be a multiple of n_kv_heads, got n_heads=8, n_kv_heads=3"),
        ((8, 4, 0), "devices must be an integer of at least 1, got 0"),
    ],
)
def test_heads_that_cannot_be_divided(sizes, message):
    with pytest.raises(ValueError, match=message):
        devices.kv_heads_held(*sizes)


def test_the_rule_of_the_cache_refuses_the_same():
    """Catches a lab that splits what the cost model says cannot be split, and the reverse."""
    for H_kv, N in itertools.product((1, 2, 3, 4, 6, 12), (1, 2, 3, 4, 6, 12)):
        if H_kv % N and N % H_kv:
            with pytest.raises(ValueError, match="devices must divide"):
                cache_size(Geometry(1, 12, H_kv, D), T, devices=N)
            with pytest.raises(ValueError, match="multiple or a divisor"):
                devices.kv_heads_held(12, H_kv, N)
        else:
            held = cache_size(Geometry(1, 12, H_kv, D), 1, devices=N, dtype=8).per_device
            assert held == devices.kv_heads_held(12, H_kv, N) * 2 * D


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 0}, "ranks must be an integer of at least 1, got 0"),
        ({"ranks": 3}, "n_heads must be a multiple of the number of devices, 3, got 8"),
        ({"ranks": 3, "splits": ["sequences"]}, "batch_size must be a multiple .* 3, got 4"),
        ({"ranks": 2, "splits": ["context"]}, "split must be one of heads, .*got 'context'"),
        ({"ranks": 2, "splits": []}, "splits and layers must not be empty"),
        ({"ranks": 2, "layers": ["MLP"]}, "layer must be one of MHA, .*got 'MLP'"),
        ({"ranks": 2, "batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
    ],
)
def test_a_plan_is_refused_before_it_starts(options, message, monkeypatch):
    """Catches a mistake that shows only once all processes have loaded torch."""
    monkeypatch.setattr(devices, "launch", None)
    with pytest.raises(ValueError, match=message):
        devices.run_on(**options)


def test_bad_ranks():
    with pytest.raises(ValueError, match="rank must be below the number of devices, 2, got 2"):
        Group(2, 2)
    with pytest.raises(ValueError, match="rank must be an integer of at least 0, got -1"):
        devices.part_by_heads(devices.example_layer("MQA"), -1, 2)
    with pytest.raises(ValueError, match="devices must be an integer of at least 1, got 0"):
        devices.part_by_heads(devices.example_layer("MQA"), 0, 0)
    split = devices.SplitBySequences(devices.example_layer("MQA"), Group(0, 2))
    with pytest.raises(ValueError, match=r"batch_size must be a multiple .* 2, got 3"):
        split.new_cache(3, T)
    with pytest.raises(ValueError, match=r"batch_size must be a multiple .* 2, got 3"):
        split(torch.randn(3, T, 64), None)


@pytest.mark.parametrize("split", [devices.SplitByPositions, devices.SplitByHeads])
def test_a_window_is_not_split(split):
    """Catches a window that is dropped without a word, and sinks that are not divided."""
    layer = SlidingWindowAttention(D_MODEL, H, H, window=3, head_dim=D)
    with pytest.raises(ValueError, match=r"layer must be .* got SlidingWindowAttention"):
        split(layer, Group(0, 2))


def test_link_floor_by_hand():
    """Catches a link that is used twice, latency paid once, and layers forgotten."""
    model = Geometry(3, 8, 2, 16, d_model=64)
    options = {"devices": 4, "bytes_per_second": 1e6}
    heads = 3 * (2 * 3 * 64 * 2 / 4) / 1e6
    assert devices.link_floor(model, split="heads", **options) == pytest.approx(heads)
    waited = devices.link_floor(model, split="heads", latency=1.0, **options)
    assert waited == pytest.approx(heads + 3 * 6)
    positions = 3 * (3 * 8 * 17 * 2) / 1e6
    waited = devices.link_floor(model, split="positions", latency=1.0, **options)
    assert waited == pytest.approx(positions + 3 * 3)
    assert devices.link_floor(model, split="heads", devices=1, bytes_per_second=1.0) == 0
    with pytest.raises(ValueError, match="above 0 and latency at least 0, got 0 and"):
        devices.link_floor(model, split="heads", devices=2, bytes_per_second=0)


def test_sent_bytes_of_a_published_model():
    """Catches a formula that only takes the small layers: 2 (N - 1) / N of 4,096 numbers."""
    model = MODELS["Llama-3 8B"]
    assert devices.sent_bytes(model, devices=8, split="heads") == 32 * 2 * 7 * 4096 * 2 // 8
    with pytest.raises(ValueError, match="d_model must be an integer of at least 1, got None"):
        devices.sent_bytes(Geometry(1, 8, 2, 16), devices=2, split="heads")


def test_the_command_needs_its_launcher(monkeypatch, capsys):
    """Catches a traceback where one line says what to do."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit, match="2"):
        devices.main([])
    assert "python -m torch.distributed.run --nproc-per-node N" in capsys.readouterr().err


def test_last_words_are_those_of_each_rank(tmp_path):
    for rank, text in (("0", ""), ("1", "a\nb\nc\nd\n")):
        Path(tmp_path, "attempt_0", rank).mkdir(parents=True)
        Path(tmp_path, "attempt_0", rank, "stderr.log").write_text(text)
    assert devices.last_words(str(tmp_path), lines=2) == "rank 1: c\nrank 1: d"
