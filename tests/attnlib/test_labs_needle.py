"""The needle: its texts, which models can see it, a script that stops, and what is stored."""

import json
import math
import re
from dataclasses import asdict, replace

import pytest
import torch

from attnlib import GroupedQueryAttention
from attnlib.labs import needle, results
from attnlib.labs.needle import (
    KINDS,
    NeedleFindings,
    NeedleRun,
    Settings,
    answer_loss,
    judge,
    make_layers,
    make_texts,
    pattern_model,
    run_needle,
    with_other_needles,
)

TINY = Settings(
    d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, window=3, tokens=11, n_values=5,
    questions=0.5, steps=3, batch_size=7, warmup=1, texts=6, swapped=4, distances=(1, 4, 5, 10),
)  # fmt: skip
# A window of 4 in 3 layers reaches 10 tokens, the farthest of them 9 away.
SMALL = Settings(
    d_model=12, n_layers=3, n_heads=6, n_kv_heads=3, d_ff=20, window=4, tokens=17, n_values=5,
    texts=8, swapped=8, distances=tuple(range(1, 17)),
)  # fmt: skip


def options(settings):
    """A command line that gives these settings."""
    for name, value in asdict(settings).items():
        yield f"--{name.replace('_', '-')}"
        yield from map(str, value if isinstance(value, tuple) else (value,))


def texts_at(*at, settings=TINY, seed=0):
    """Texts with needles at some positions."""
    return make_texts(torch.tensor(at), settings, torch.Generator().manual_seed(seed))


class TestTexts:
    """The answer is in one place only, and all later questions have it."""

    def test_needles_and_questions_are_where_they_should_be(self):
        """Catches a question before its needle, and a text without a question."""
        at = list(range(10)) * 20
        texts = texts_at(*at)
        assert texts.tokens.shape == (200, 11)
        for row, questions, place, letter in zip(*texts[:2], at, texts.needles, strict=True):
            assert row[place] == letter
            assert not questions[: place + 1].any() and questions[-1]
            assert torch.equal(questions, row == ord("?"))

    def test_a_needle_is_the_only_capital_letter(self):
        """Catches an answer that stands elsewhere, such as right after a question."""
        texts = texts_at(*[3, 9] * 100)
        capitals = (texts.tokens >= ord("A")) & (texts.tokens <= ord("Z"))
        assert (capitals.sum(dim=1) == 1).all()
        assert set(texts.needles.tolist()) == set(map(ord, "ABCDE"))

    def test_another_needle_is_the_only_difference(self):
        """Catches a swap that keeps the needle, or that moves another token."""
        at = torch.tensor([0, 3, 9, 9])
        texts = texts_at(*at.tolist())
        others = with_other_needles(texts, at, TINY)
        differs = (texts.tokens != others.tokens).nonzero().tolist()
        assert differs == [[0, 0], [1, 3], [2, 9], [3, 9]]
        assert (others.needles < ord("A") + 5).all() and (others.needles >= ord("A")).all()

    def test_the_loss_counts_questions_alone(self):
        """Catches a loss at letters, which no model can predict."""
        texts = texts_at(2, 6, 8)
        logits = torch.full((3, 11, 256), 5.0)
        logits[~texts.questions] = torch.randn(256)  # wrong in any way
        assert answer_loss(lambda _: logits, texts).item() == pytest.approx(math.log(256))
        for row, letter in enumerate(texts.needles):
            logits[row, texts.questions[row], letter] = 40.0
        assert answer_loss(lambda _: logits, texts).item() < 1e-6


class TestReach:
    """L layers with a window of W tokens reach L (W - 1) + 1 tokens, and not one more."""

    def test_the_reach_is_that_of_the_layers(self):
        """Catches L * W, which counts the query's own token once per layer."""
        assert Settings().reach == 61
        assert SMALL.reach == 10 and TINY.reach == 5

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_model_of_windows_depends_on_what_is_within_reach(self, seed):
        """Catches a window one too wide or too narrow, and a layer that forgets its window."""
        model = pattern_model("SSS", SMALL, seed=seed).double()
        tokens = texts_at(0, settings=SMALL).tokens  # (1, 17)
        x = model.embed(tokens).detach().requires_grad_()  # (1, 17, d_model)
        seen = x
        for block in model.blocks:
            seen = block(seen)  # (1, 17, d_model)
        model.unembed(model.norm(seen))[0, -1].square().sum().backward()
        reached = (x.grad[0] != 0).any(dim=-1).flip(0)  # by distance, 0 to 16
        assert reached.tolist() == [True] * 10 + [False] * 7

    @pytest.mark.parametrize(
        ("pattern", "reached"), [("SSS", 9), ("SSF", 16), ("FSS", 16), ("FFF", 16), ("S", 3)]
    )
    def test_another_needle_changes_logits_within_reach_alone(self, pattern, reached):
        """Catches a measurement of changes that says yes, or no, at every distance."""
        model = pattern_model(pattern, SMALL)
        _, changes = judge(model, SMALL, seed=0)
        assert changes == [1.0] * reached + [0.0] * (16 - reached)

    def test_accuracy_is_that_of_the_last_token(self):
        """Catches an answer that is read one token too early, or of another text."""

        class Finder(torch.nn.Module):
            """Knows the answer, and gives it at the last token alone."""

            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def forward(self, tokens):
                capital = tokens.where(tokens < ord("Z"), 0).where(tokens >= ord("A"), 0)
                logits = torch.zeros(*tokens.shape, 256)
                logits[torch.arange(len(tokens)), -1, capital.amax(dim=1)] = 1.0
                return logits

        accuracy, changes = judge(Finder(), SMALL, seed=3, at_once=5)
        assert accuracy == changes == [1.0] * 16

    def test_each_seed_has_its_own_texts(self):
        """Catches intervals over seeds that all share the luck of the same texts."""
        read = []
        model = pattern_model("S", TINY)
        model.register_forward_pre_hook(lambda _, given: read.append(given[0]))
        for seed in (0, 1, 0):
            judge(model, TINY, seed)
        first, other, again = torch.cat(read).chunk(3)
        assert torch.equal(first, again) and not torch.equal(first, other)


class TestModels:
    """All kinds begin with the same weights, and differ in their windows alone."""

    def test_patterns_are_what_the_names_say(self):
        """Catches a hybrid whose full layer is elsewhere."""
        assert list(Settings().patterns.values()) == ["FFFF", "SSSF", "FSSS", "SSSS"]
        assert tuple(Settings().patterns) == KINDS
        assert SMALL.patterns["hybrid"] == "SSF"

    def test_layers_are_what_the_letters_say(self):
        """Catches a window in a full layer, and layers in another order."""
        layers = make_layers("SFS", SMALL)
        assert [getattr(layer, "window", None) for layer in layers] == [4, None, 4]
        assert isinstance(layers[1], GroupedQueryAttention)
        assert layers[0].rope == layers[1].rope is not None

    def test_all_kinds_begin_with_the_same_weights(self):
        """Catches a kind that is better by its first weights, and a seed without effect."""
        weights = [pattern_model(p, SMALL, seed=5).state_dict() for p in ("FFF", "SSF", "SSS")]
        for other in weights[1:]:
            assert weights[0].keys() == other.keys()
            assert all(torch.equal(value, other[name]) for name, value in weights[0].items())
        other = pattern_model("FFF", SMALL, seed=6).state_dict()
        assert not torch.equal(weights[0]["embed.weight"], other["embed.weight"])

    def test_training_helps(self):
        """Catches a step that changes nothing, and a learning rate that climbs."""
        short = replace(SMALL, window=17, steps=40, lr=1e-2, warmup=5)
        model = pattern_model("F", short)
        before = answer_loss(model, texts_at(3, 8, 12, settings=short)).item()
        assert needle.train_to_find(model, short, seed=0) < before / 2


class TestScript:
    """A run from end to end, stops and restarts."""

    def test_script_writes_what_load_reads_and_goes_on(
        self, tmp_path, capsys, monkeypatch, one_thread
    ):
        """Catches a field that is written and not read, and a restart that trains again."""
        path = tmp_path / "n.json"
        command = ["--json", str(path), *options(TINY), "--seeds"]
        needle.main([*command, "3"])
        first = json.loads(path.read_text())["runs"]
        needle.main([*command, "3", "4"])
        written = json.loads(path.read_text())
        assert written["runs"][: len(KINDS)] == first
        found = NeedleFindings.read(written)
        assert json.loads(json.dumps(found.report())) == written
        assert found.settings == TINY and found.seeds() == [3, 4]
        trials = [run.trial for run in found.runs]
        assert trials == [(kind, seed) for seed in (3, 4) for kind in KINDS]
        assert found.distances == (1, 4, 5, 10) and found.chance == 0.2
        assert found.changes("all window") == [1, 1, 0, 0]
        assert found.changes("hybrid") == found.changes("all full") == [1, 1, 1, 1]
        assert found.text == {"values": "ABCDE", "filler": needle.FILLER, "question": "?"}
        assert list(tmp_path.iterdir()) == [path]
        printed = capsys.readouterr().out
        assert found.describe() in printed and "hybrid, full first" in printed
        monkeypatch.setattr(needle, "run_one", lambda *_: pytest.fail("trained"))
        needle.main([*command, "3", "4"])

    def test_a_run_depends_on_its_seed_alone(self):
        """Catches a result that depends on what was trained before."""
        once, again, other = (needle.run_one("hybrid", seed, TINY) for seed in (1, 1, 2))
        assert once._replace(cpu_seconds=0) == again._replace(cpu_seconds=0)
        assert once.loss != other.loss

    def test_runs_of_other_settings_are_kept_apart(self, tmp_path, capsys, one_thread):
        """Catches a mean over models with different windows."""
        path = tmp_path / "n.json"
        run_needle(path, [0], TINY, kinds=["all window"], progress=lambda line: None)
        before = path.read_text()
        with pytest.raises(SystemExit) as stopped:
            needle.main(["--json", str(path), *options(replace(TINY, window=4))])
        assert stopped.value.code == 2 and path.read_text() == before
        (line,) = capsys.readouterr().err.splitlines()
        assert "error: settings must be those of the runs in n.json" in line

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--threads", "0"], "threads must be an integer of at least 1, got 0"),
            (["--device", "abacus"], "device must be one that torch finds here, got abacus"),
            (["--window", "0"], "window must be an integer of at least 1, got 0"),
            (["--kinds", "no layer"], "argument --kinds: invalid choice: 'no layer'"),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_refused_in_one_line(
        self, arguments, message, tmp_path, capsys, one_thread
    ):
        """Catches a traceback, and minutes of training before it."""
        with pytest.raises(SystemExit) as stopped:
            needle.main(["--json", str(tmp_path / "n.json"), *arguments])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line

    def test_only_seeds_that_all_kinds_have_are_compared(self):
        """Catches a mean over seeds which another kind has not."""
        runs = [NeedleRun(kind, seed, [seed / 10], [0.0], 1.0, 1.0)
                for kind, seed in (("hybrid", 4), ("hybrid", 2), ("all full", 2),
                                   ("all full", 9), ("all full", 4))]  # fmt: skip
        found = NeedleFindings({}, {}, TINY, runs)
        assert found.seeds() == [2, 4]
        (share,) = found.accuracy("all full")
        assert share.mean == pytest.approx(0.3) and share.count == 2
        with pytest.raises(ValueError, match=r"kind must be one of .*, got 'all window'"):
            found.accuracy("all window")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"n_layers": 1}, "n_layers must be an integer of at least 2, got 1"),
        ({"tokens": 1}, "tokens must be an integer of at least 2, got 1"),
        ({"n_kv_heads": 3}, "got n_heads=4, n_kv_heads=3"),
        ({"n_heads": 3}, "got d_model=64, n_heads=3"),
        ({"n_values": 27}, "n_values must be 2 to 26, got 27"),
        ({"n_values": 1}, "n_values must be 2 to 26, got 1"),
        ({"questions": 1.5}, "questions must be 0 to 1, got 1.5"),
        ({"swapped": 129}, "swapped must be up to texts = 128, got 129"),
        ({"distances": (0, 5)}, r"distances must lie in 1 to tokens - 1 = 95, got \(0, 5\)"),
        ({"distances": (96,)}, r"distances must lie in 1 to .* = 95, got \(96,\)"),
        ({"distances": ()}, r"distances must lie in 1 to .* = 95, got \(\)"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(wrong, message):
    """Catches a setting that fails later with a message about something else."""
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_kinds_and_patterns_that_do_not_exist_are_refused():
    """Catches a typing error that trains another model."""
    with pytest.raises(ValueError, match=r"kind must be one of .*, got 'half'"):
        needle.run_one("half", 0, TINY)
    for pattern in ("", "SSX", "ssf"):
        with pytest.raises(ValueError, match=f"of the letters F and S, got '{pattern}'"):
            make_layers(pattern, TINY)
    with pytest.raises(ValueError, match="at_once must be an integer of at least 1, got 0"):
        judge(pattern_model("F", TINY), TINY, 0, at_once=0)


@pytest.fixture(scope="module")
def stored():
    return NeedleFindings.load()


class TestStored:
    """What is stored with the package was made by the script as it is, and shows the reach."""

    def test_every_kind_has_every_seed(self, stored):
        """Catches a run that was stopped before its end."""
        assert len(stored.seeds()) >= 5
        assert {run.kind for run in stored.runs} == set(KINDS)
        assert len(stored.runs) == len(stored.seeds()) * len(KINDS)

    def test_settings_are_those_of_the_code(self, stored):
        """Catches results of models or texts that the code no longer makes."""
        assert stored.settings == Settings()
        assert stored.text == needle.no_runs(Settings()).text
        for run in stored.runs:
            assert len(run.accuracy) == len(run.changes) == len(stored.distances)
            assert all(0 <= share <= 1 for share in run.accuracy + run.changes)
            assert run.loss > 0 and run.cpu_seconds > 0

    def test_provenance_says_where_and_with_what_but_not_whose(self, stored):
        """Catches a path or the name of a machine in the file, and a fact that is missing."""
        for fact in ("date", "processor", "threads", "dtype", "torch", "python", "attnlib"):
            assert stored.provenance[fact], fact
        text = json.dumps(stored.report())
        assert not re.search(r"/(?:home|root|tmp|usr|work)\b|hostname", text, re.IGNORECASE)
        assert "needle-cpu" in results.names() and "reach 61" in stored.describe()

    @pytest.mark.parametrize("kind", KINDS[:3])
    def test_a_layer_that_sees_everything_finds_it_at_every_depth(self, stored, kind):
        """Catches a model that has not learned, which would say nothing about windows."""
        for run in stored.runs:
            if run.kind == kind:
                assert min(run.accuracy) > 0.95
                assert set(run.changes) == {1.0}

    def test_windows_relay_what_lies_outside_one_of_them(self, stored):
        """Catches a model of windows that never learned to relay, and prose that says so."""
        for run in stored.runs:
            if run.kind == "all window":
                relayed = dict(zip(stored.distances, run.accuracy, strict=True))
                assert min(relayed[d] for d in relayed if d <= 56) > 0.95
                changed = dict(zip(stored.distances, run.changes, strict=True))
                assert {changed[d] for d in changed if d < stored.settings.reach} == {1.0}

    def test_the_last_tokens_of_the_reach_are_the_hardest(self, stored):
        """Catches prose about the edge of the reach that new results no longer show."""
        means = {d: share.mean for d, share in
                 zip(stored.distances, stored.accuracy("all window"), strict=True)}  # fmt: skip
        assert means[57] > means[58] > means[59] > means[60] > 5 * stored.chance
        assert stored.accuracy("all window")[stored.distances.index(60)].high < 0.95

    def test_windows_alone_guess_beyond_their_reach(self, stored):
        """Catches texts that give the answer away, and a window that is not one."""
        questions = len(stored.seeds()) * stored.settings.texts
        error = math.sqrt(stored.chance * (1 - stored.chance) / questions)
        found = zip(stored.distances, stored.accuracy("all window"),
                    stored.changes("all window"), strict=True)  # fmt: skip
        beyond = [row for row in found if row[0] >= stored.settings.reach]
        assert len(beyond) > 10
        for distance, share, changed in beyond:
            assert abs(share.mean - stored.chance) < 4 * error, distance
            assert changed == 0, distance
