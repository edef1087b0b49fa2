"""I2X against independent witnesses: loops in float64, captum, scikit-learn; interruptions and broken files."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import captum.attr
import numpy as np
import planted
import pytest
import torch
from planted import PlantedRun
from safetensors.torch import load_file, save_file
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from audit_core.classifier import Classifier
from audit_core.errors import BadData, InvalidParameter
from audit_core.explainers.cam import GradCAM
from audit_core.i2x import analysis
from audit_core.i2x.features import look
from audit_core.i2x.finding import find, judge
from audit_core.i2x.intensity import prototype_intensity
from audit_core.i2x.making import Stopped, analyse
from audit_core.i2x.mapping import group, ridge, transition
from audit_core.i2x.pieces import PIECES
from audit_core.i2x.runs import Facts, open_run
from audit_core.i2x.sample import open_sample
from audit_core.i2x.settings import Settings
from models.zoo import load

SMALL = Settings(prototypes=6, components=5)


def small_run(folder: Path, steps: int = 4) -> Path:
    """Checkpoints of one tiny architecture whose weights grow from noise."""
    from models.checkpoint import build_timm

    folder.mkdir()
    module = build_timm("digits_resnet", 10, 1)
    rng = torch.Generator().manual_seed(0)
    for t in range(steps):
        state = {
            name: value + 0.3 * t * torch.randn(value.shape, generator=rng) if value.ndim > 1 else value
            for name, value in module.state_dict().items()
        }
        save_file({name: value.contiguous() for name, value in state.items()}, folder / f"weights-{10 * t}.safetensors")
    return folder


FACTS = Facts("digits_resnet", tuple(map(str, range(10))))


def test_intensity_equals_a_literal_loop() -> None:
    rng = np.random.default_rng(0)
    saliency, assignments = rng.normal(size=(7, 3, 4, 5)), rng.integers(0, 6, (7, 4, 5))
    found = prototype_intensity(saliency, assignments, 8)
    for i in range(7):
        for k in range(8):
            for t in range(3):
                values = [
                    saliency[i, t, r, c] for r in range(4) for c in range(5) if assignments[i, r, c] == k
                ]  # fmt: skip
                assert found[i, k, t] == pytest.approx(sum(values) / len(values) if values else 0.0, rel=1e-6)


def test_beta_equals_a_literal_loop_and_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[0.5, -0.5, 0.0], [-0.4, 0.0, 0.4], [0.0, 0.3, -0.3]])
    member = rng.integers(0, 3, 300)
    confidence = centres[member] + rng.normal(0, 0.01, (300, 3))
    intensity = rng.normal(size=(300, 5, 1)) + member[:, None, None] * np.arange(5)[None, :, None]
    found = transition(intensity, confidence, SMALL, np.random.default_rng(0))
    labels = HDBSCAN(min_cluster_size=SMALL.smallest_group(300), min_samples=5, copy=True).fit_predict(confidence)
    assert found.groups == labels.max() + 1 == 3
    pi, change = np.zeros((3, 5)), np.zeros((3, 3))
    for g in range(3):
        rows = [i for i in range(300) if labels[i] == g]
        for k in range(5):
            pi[g, k] = sum(intensity[i, k, 0] for i in rows) / len(rows)
        for c in range(3):
            change[g, c] = sum(confidence[i, c] for i in rows) / len(rows)
    penalty = SMALL.ridge * sum(pi[g, k] ** 2 for g in range(3) for k in range(5)) / 5
    literal = np.linalg.inv(pi.T @ pi + penalty * np.eye(5)) @ pi.T @ change
    assert np.allclose(found.beta, literal, rtol=1e-9, atol=1e-12)
    assert np.allclose(found.beta, Ridge(penalty, fit_intercept=False).fit(pi, change).coef_.T, rtol=1e-9, atol=1e-12)
    wrong = 0.0
    for g in range(3):
        others = [h for h in range(3) if h != g]
        own = SMALL.ridge * (pi[others] ** 2).sum() / 5
        wrong += ((pi[g] @ ridge(pi[others], change[others], own) - change[g]) ** 2).sum()
    assert found.error == pytest.approx(np.sqrt(wrong / (change**2).sum()))
    assert found.noise == pytest.approx((labels < 0).mean())
    assert found.driven_by_penalty


def test_the_reading_within_groups() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(4, 2))
    member = np.repeat([0, 1], 200)
    intensity = rng.normal(0, 0.05, (400, 4, 1)) + 3 * member[:, None, None]
    confidence = intensity[..., 0] @ truth
    found = transition(intensity, confidence, dataclasses.replace(SMALL, reading="within", ridge=1e-9), rng)
    assert found.groups >= 2
    assert np.allclose(found.beta, truth, atol=1e-3)


def test_nothing_to_group_says_so() -> None:
    same = np.zeros((50, 3))
    found = transition(np.zeros((50, 4, 1)), same, SMALL, np.random.default_rng(0))
    assert np.isfinite(found.beta).all()
    few = transition(np.ones((6, 4, 1)), np.eye(6, 3), SMALL, np.random.default_rng(0))
    assert (few.groups, few.noise) == (0, 1.0)
    assert not few.beta.any()
    assert np.isnan(few.error)


def test_saliency_is_raw_grad_cam() -> None:
    loaded = load("wafer-densenet121")
    classifier = Classifier(loaded.card, loaded.module, torch.device("cpu"))
    pixels = torch.rand((3, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    labels = np.array([1, 4, 8])
    seen = look(classifier, pixels, labels, Settings(layer="stage3"))
    layer = loaded.card.layer("stage3")
    with classifier.lend() as module:
        place = module.get_submodule(layer.module)
        witness = captum.attr.LayerGradCam(module, place).attribute(
            classifier.normalise(pixels), torch.from_numpy(labels), relu_attributions=True
        )
    assert np.allclose(seen.saliency, witness.detach().numpy(), rtol=1e-4, atol=1e-7)
    own = GradCAM(layer="stage3").coarse(classifier, pixels, torch.from_numpy(labels), layer)
    assert np.allclose(seen.saliency[:, 0], np.maximum(own, 0), rtol=1e-4, atol=1e-7)
    everything = look(classifier, pixels, labels, Settings(layer="stage3", target="all"))
    assert everything.saliency.shape == (3, 9, 4, 4)
    assert np.allclose(everything.saliency[np.arange(3), labels], seen.saliency[:, 0], rtol=1e-4, atol=1e-7)
    assert np.allclose(seen.confidence, classifier.predict(pixels).softmax(1).numpy(), atol=1e-6)
    scaled = look(classifier, pixels, labels, Settings(layer="stage3", normalisation="max"))
    top = seen.saliency.max((2, 3), keepdims=True)
    assert (top > 0).any()
    assert np.allclose(scaled.saliency, seen.saliency / np.where(top > 0, top, 1))


def test_a_transformer_is_read_by_rollout() -> None:
    loaded = load("wafer-vit-tiny")
    classifier = Classifier(loaded.card, loaded.module, torch.device("cpu"))
    pixels = torch.rand((2, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    for name in ("rollout", "gradient-rollout"):
        seen = look(classifier, pixels, np.array([1, 2]), Settings(explainer=name))
        assert seen.saliency.shape == (2, 1, 16, 16)
        assert np.isfinite(seen.saliency).all()
    cnn = load("wafer-densenet121")
    with pytest.raises(InvalidParameter, match="choose another explainer"):
        look(Classifier(cnn.card, cnn.module, torch.device("cpu")), pixels, np.ones(2, int), Settings(explainer=name))


def test_prototypes_are_scikit_learns() -> None:
    sample, _ = planted.images(20)
    classifier = PlantedRun().classifier(80)
    found = find(classifier, sample.pixels, SMALL)
    features = np.moveaxis(sample.pixels.numpy(), 1, -1).reshape(-1, 6)
    pca = PCA(5, svd_solver="covariance_eigh", random_state=0).fit(features)
    clusters = KMeans(6, n_init=10, random_state=0).fit(pca.transform(features).astype(np.float32))
    assert np.array_equal(found.assignments.ravel(), clusters.predict(pca.transform(features).astype(np.float32)))
    assert found.explained == pytest.approx(pca.explained_variance_ratio_.sum())
    for image, row, column in found.strongest(2):
        assert found.assignments[image, row, column] == 2
        own = found.distances[image][found.assignments[image] == 2]
        assert found.distances[image, row, column] == own.min()
    assert found.shares.sum(1) == pytest.approx(1)


@pytest.mark.parametrize("criterion", ["silhouette", "stability"])
def test_k_is_found_where_there_is_one(criterion: str) -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(5, 8))
    points = (centres[rng.integers(0, 5, 1500)] + rng.normal(0, 0.1, (1500, 8))).astype(np.float32)
    scores = dict(judge(points, Settings(prototypes=0, candidates=(3, 5, 12), criterion=criterion)))
    assert max(scores, key=lambda count: scores[count]) == 5


def test_k_is_chosen_where_none_is_given() -> None:
    sample, _ = planted.images(20)
    asked = Settings(prototypes=0, components=5, candidates=(3, 6, 11))
    found = find(PlantedRun().classifier(80), sample.pixels, asked)
    assert found.count == 6
    assert [count for count, _ in found.judged] == [3, 6, 11]
    assert max(found.judged, key=lambda pair: pair[1])[0] == 6


def test_groups_are_those_of_hdbscan() -> None:
    rng = np.random.default_rng(0)
    changes = np.concatenate([rng.normal(m, 0.01, (40, 2)) for m in (-1, 0, 1)])
    assert len(set(group(changes, 10).tolist())) == 3
    assert (group(changes[:10], 10) == -1).all()


def equal(a: analysis.Analysis, b: analysis.Analysis) -> None:
    assert np.array_equal(a.trajectory.intensity, b.trajectory.intensity)
    assert np.array_equal(a.trajectory.confidence, b.trajectory.confidence)
    assert np.array_equal(a.prototypes.assignments, b.prototypes.assignments)
    assert np.array_equal(a.beta, b.beta)
    assert {k: v for k, v in a.manifest.items()} == dict(b.manifest)


def test_interrupted_anywhere_it_ends_the_same(tmp_path: Path) -> None:
    sample, _ = planted.images(25)
    whole = analyse(PlantedRun(), sample, SMALL, tmp_path / "whole")
    for moment in range(0, 18, 3):
        asked = iter(range(100))
        folder = tmp_path / f"stopped{moment}"
        with pytest.raises(Stopped):
            analyse(PlantedRun(), sample, SMALL, folder, stop=lambda asked=asked, moment=moment: next(asked) == moment)
        equal(analyse(PlantedRun(), sample, SMALL, folder), whole)


def test_a_broken_piece_is_made_again(tmp_path: Path) -> None:
    sample, _ = planted.images(25)
    whole = analyse(PlantedRun(), sample, SMALL, tmp_path / "a")
    for path in sorted((tmp_path / "a" / PIECES).iterdir())[::3]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadData, match="lacks a piece"):
        analysis.read(tmp_path / "a")
    equal(analyse(PlantedRun(), sample, SMALL, tmp_path / "a"), whole)
    equal(analysis.read(tmp_path / "a"), whole)
    with pytest.raises(BadData, match="holds no finished"):
        analysis.read(tmp_path / "b")


def test_any_folder_of_checkpoints_opens_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    run = open_run(folder, FACTS)
    assert run.steps == (0, 10, 20, 30)
    sample = open_sample("digits", "test", run.final().card, per_class=6)
    whole = analyse(run, sample, SMALL, tmp_path / "out")
    assert whole.trajectory.intensity.shape[:3] == (4, 60, 6)
    (folder / "weights-10.safetensors").write_bytes(b"not a tensor in sight")
    tensors = load_file(folder / "weights-20.safetensors")
    first = next(iter(tensors))
    save_file({name: value for name, value in tensors.items() if name != first}, folder / "weights-20.safetensors")
    broken = analyse(open_run(folder, FACTS), sample, SMALL, tmp_path / "out")
    assert broken.trajectory.steps == (0, 30)
    assert [name for name, _ in broken.broken] == ["weights-10.safetensors", "step 20"]
    assert "missing" in dict(broken.broken)["step 20"]
    assert np.array_equal(broken.trajectory.intensity[[0, 1]], whole.trajectory.intensity[[0, 3]])
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(BadData, match="0 readable checkpoints"):
        open_run(folder, FACTS)
    with pytest.raises(BadData, match="is no folder"):
        open_run(tmp_path / "nowhere")


def test_a_listed_checkpoint_that_is_missing_is_named(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[1] / "models" / "runs" / "digits-resnet"
    folder = shutil.copytree(source, tmp_path / "run")
    listed = json.loads((folder / "run.json").read_text())["checkpoints"]
    (folder / listed[2]["file"]).unlink()
    run = open_run(folder)
    assert run.broken == ((listed[2]["file"], "the file is missing"),)
    assert len(run.steps) == len(listed) - 1


def test_the_model_and_the_global_random_state_are_as_found(tmp_path: Path) -> None:
    sample, _ = planted.images(20)
    classifier = PlantedRun().classifier(50)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    classifier.module.train()
    find(classifier, sample.pixels, SMALL)
    look(classifier, sample.pixels, sample.labels, SMALL)
    assert classifier.module.training
    assert all(p.requires_grad and p.grad is None for p in classifier.module.parameters())
    assert not classifier.module.stage._forward_hooks
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prototypes": 1}, "at least 2"),
        ({"target": "any"}, "true, predicted, all"),
        ({"ridge": 0.0}, "ridge must be in"),
        ({"criterion": "luck"}, "silhouette, stability"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        Settings(**wrong)  # type: ignore[arg-type]


def test_settings_survive_json() -> None:
    settings = Settings(candidates=(4, 9), target="all", ridge=0.5)
    assert Settings.parse(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
    with pytest.raises(InvalidParameter, match="no setting 'colour'"):
        Settings.parse({"colour": "red"})


def test_another_normalisation_is_another_analysis(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", steps=2)
    sample = open_sample("digits", "test", open_run(folder, FACTS).final().card, per_class=3)
    first = analyse(open_run(folder, FACTS), sample, SMALL, tmp_path / "out")
    second = analyse(open_run(folder, dataclasses.replace(FACTS, mean=(0.4,))), sample, SMALL, tmp_path / "out")
    assert not np.array_equal(first.trajectory.confidence, second.trajectory.confidence)
    equal(analyse(open_run(folder, FACTS), sample, SMALL, tmp_path / "out"), first)
