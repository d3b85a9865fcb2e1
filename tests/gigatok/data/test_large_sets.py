"""The stages on image sets that are not held in memory: ImageNet's code path on a tiny release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gigatok.config import (
    CNNConfig,
    CodesConfig,
    DataConfig,
    EvaluationConfig,
    GeneratorConfig,
    ProbeConfig,
    SamplingConfig,
    SplitConfig,
    TokenizerConfig,
    TransformerSize,
    TrialConfig,
)
from gigatok.data.crops import center_crop, five_crops
from gigatok.data.imagenet import release
from gigatok.data.splits import load_split, to_unit_range, training_batch
from gigatok.models.frozen.teachers import build_teacher
from gigatok.models.generator.generator import LlamaGen
from gigatok.runtime.context import Interrupted, Ranks, Runtime, Scores
from gigatok.runtime.tracker import MemoryTracker, NullTracker
from gigatok.stages import STAGES
from gigatok.stages.assets import required_assets
from gigatok.stages.evaluate_generation import run as evaluate_generation
from gigatok.stages.evaluate_generation.spec import EvaluateGenerationConfig
from gigatok.stages.extract_codes import run as extract_codes
from gigatok.stages.extract_codes.spec import ExtractCodesConfig
from gigatok.stages.extract_reference_features import run as extract_reference_features
from gigatok.stages.extract_reference_features.spec import ReferenceFeaturesConfig
from gigatok.stages.linear_probe import run as linear_probe
from gigatok.stages.linear_probe.spec import LinearProbeConfig
from gigatok.stages.train_generator import run as train_generator
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.stages.train_tokenizer import run as train_tokenizer
from gigatok.stages.train_tokenizer.batches import OnlineTarget, TokenizerBatches
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.saved import Codes, load_tokenizer
from tests.gigatok.process_pair import ProcessPair
from tests.gigatok.tiny_imagenet import (
    TINY,
    split_of,
    train_samples,
    val_samples,
    write_tars,
)

SIZE = TransformerSize(width=32, layers=1, heads=1)
TRAINING: dict[str, Any] = {"steps": 3, "batch_size": 4, "lr": 1e-3}
TOKENIZER = TokenizerConfig(
    **TRAINING,
    encoder=SIZE,
    decoder=SIZE,
    cnn=CNNConfig(
        channels=16,
        multipliers=(1, 2),
        resblocks=1,
        mid_blocks=0,
        z_channels=32,
        groups=4,
        patch_size=2,
    ),
    num_latent_tokens=8,
    codebook_size=64,
    usage_window=128,
    semantic_layer=1,
    teacher="pixels",
    init="fan_in",
    perceptual_weight=0.0,
    augment="crop_flip",
)
GENERATOR = GeneratorConfig(**TRAINING, size=SIZE, ffn_multiple_of=32)


@pytest.fixture(scope="module", autouse=True)
def _source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    root = tmp_path_factory.mktemp("imagenet")
    write_tars(root, "train", train_samples())
    write_tars(root, "val", val_samples())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "ILSVRC2012", TINY)
        patch.setenv("GIGATOK_IMAGENET", str(root))
        patch.setenv("GIGATOK_CACHE", str(root / "cache"))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer on random crops with its teacher online, its ten-crop codes, and a generator."""
    root = tmp_path_factory.mktemp("stages")
    done: dict[str, Path] = {}

    def run(name: str, stage: Any, config: Any) -> None:
        runtime = Runtime(root / "checkpoints" / name)
        stage.run(config, done, root / name, NullTracker(), runtime)
        done[name] = root / name

    train, val = split_of("train", 16), split_of("val", 4)
    tokenizer = TrainTokenizerConfig(train=train, tokenizer=TOKENIZER, seed=0)
    run("train_tokenizer", train_tokenizer, tokenizer)
    run("extract_codes", extract_codes, codes_config())
    run("train_generator", train_generator, TrainGeneratorConfig(generator=GENERATOR, seed=0))
    reference = ReferenceFeaturesConfig(val=val, network="pixels", resolution=4)
    run("extract_reference_features", extract_reference_features, reference)
    return done


def codes_config() -> ExtractCodesConfig:
    codes = CodesConfig(crops=5, flip=True)
    return ExtractCodesConfig(train=split_of("train", 16), val=split_of("val", 4), codes=codes)


def test_ten_crop_codes_are_those_of_crops_of_the_original(trained: dict[str, Path]) -> None:
    codes = Codes.load(trained["extract_codes"])
    assert codes.train.shape == (10, 16, 8)
    assert codes.train.dtype == torch.int16
    images = load_split(split_of("train", 16))
    assert codes.train_labels.tolist() == images.labels.tolist()
    tokenizer = load_tokenizer(trained["train_tokenizer"], "cpu")
    # As torchvision's TenCrop: the mirror image of what is cut is cut like itself.
    crops = images.cropped(np.arange(16), lambda image, _: five_crops(image, 16))
    mirrored = images.cropped(
        np.arange(16), lambda image, _: five_crops(center_crop(image, 17)[:, ::-1], 16)
    )
    for view in range(10):
        pixels = crops[:, view] if view < 5 else mirrored[:, view - 5]
        with torch.inference_mode():
            expected = tokenizer.encode(to_unit_range(pixels))
        # One code in a hundred may tie: the order of summation depends on the batch.
        assert (codes.train[view] == expected).float().mean() > 0.98


def test_extraction_continues_where_it_was_interrupted(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_codes, "BATCH", 5)
    polls = iter([False, False, True])
    runtime = Runtime(tmp_path / "checkpoints", should_stop=lambda: next(polls))
    arguments = codes_config(), trained, tmp_path / "out"
    with pytest.raises(Interrupted, match="after batch 2 of 5"):
        extract_codes.run(*arguments, NullTracker(), runtime)
    assert [p.name for p in runtime.checkpoint_dir.glob("step-*")] == ["step-000000002"]
    tracker = MemoryTracker()
    seen: list[int] = []
    tracker.progress = lambda done, total, unit, **values: seen.append(done)  # type: ignore[method-assign]
    scores = extract_codes.run(*arguments, tracker, Runtime(tmp_path / "checkpoints"))
    assert seen == [3, 4, 5]
    whole, resumed = Codes.load(trained["extract_codes"]), Codes.load(tmp_path / "out")
    assert (whole.train == resumed.train).float().mean() > 0.98
    assert (whole.val == resumed.val).float().mean() > 0.98
    assert 0 < scores.metrics["codebook_usage"] <= 1
    assert list(runtime.checkpoint_dir.iterdir()) == []


@pytest.mark.heavy
def test_codes_that_were_lost_are_encoded_again(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_codes, "BATCH", 5)

    def extract(folder: str, **options: Any) -> Codes:
        runtime = Runtime(tmp_path / "checkpoints" / folder, **options)
        out = tmp_path / "out" / folder
        extract_codes.run(codes_config(), trained, out, NullTracker(), runtime)
        return Codes.load(out)

    polls = iter([False, False, True])
    with pytest.raises(Interrupted, match="after batch 2 of 5"):
        extract("cut", should_stop=lambda: next(polls))
    file = tmp_path / "checkpoints" / "cut" / "codes.safetensors"
    content = file.read_bytes()
    # Zeros at the end are what a power cut leaves of a file whose size was known already.
    file.write_bytes(content[:100].ljust(len(content), b"\0"))
    undisturbed, again = extract("undisturbed"), extract("cut")
    assert torch.equal(again.train, undisturbed.train)
    assert torch.equal(again.val, undisturbed.val)


def test_batches_are_pure_and_their_teacher_sees_the_crops() -> None:
    config = TrainTokenizerConfig(train=split_of("train", 16), tokenizer=TOKENIZER, seed=3)
    images, teacher = load_split(config.train), build_teacher("pixels")
    batches = TokenizerBatches(config, images, OnlineTarget(teacher), "cpu")
    part = slice(1, 4)
    for step in (0, 1, 2, 7, 1):
        image_BCHW, features = batches.get(step, part)
        expected, _, _ = training_batch(images, 16, "crop_flip", 3, step, 4, part)
        torch.testing.assert_close(image_BCHW, to_unit_range(expected), rtol=0, atol=0)
        assert features is not None
        torch.testing.assert_close(features, teacher.features(to_unit_range(expected)))


def generation_config(images: int = 11) -> EvaluateGenerationConfig:
    sampling = SamplingConfig(num_images=images, batch_size=3)
    evaluation = EvaluationConfig(
        num_images=4, network="pixels", resolution=4, lpips_network="none"
    )
    return EvaluateGenerationConfig(sampling=sampling, evaluation=evaluation, seed=5)


def generate(ranks: Ranks, inputs: dict[str, Path], folder: Path) -> dict[str, float]:
    runtime = Runtime(folder / "checkpoints", ranks=ranks)
    out = folder / "out"
    scores = evaluate_generation.run(generation_config(), inputs, out, NullTracker(), runtime)
    return dict(scores.metrics)


@pytest.mark.slow
@pytest.mark.heavy
def test_two_processes_draw_the_samples_that_one_draws(
    pair: ProcessPair, trained: dict[str, Path], tmp_path: Path
) -> None:
    alone = generate(Ranks(), trained, tmp_path / "one")
    assert set(alone) == {"gfid", "gkid", "gkid_se", "precision", "recall"}
    first, second = pair.run(generate, trained, tmp_path / "two")
    assert second == {}
    assert first == pytest.approx(alone, rel=1e-6)
    for name in ("samples", "labels"):
        one, two = (np.load(tmp_path / n / "out" / f"{name}.npy") for n in ("one", "two"))
        assert len(one) == 11
        np.testing.assert_array_equal(one, two)
    left = sorted(p.name for p in (tmp_path / "two" / "checkpoints").iterdir())
    assert left == ["features.npy"]


def trial(**changes: Any) -> TrialConfig:
    return TrialConfig(
        data=DataConfig(name="imagenet", image_size=16, train_images=1000, val_images=50),
        tokenizer=TOKENIZER.model_copy(update=changes),
        generator=GENERATOR,
        sampling=SamplingConfig(num_images=8),
        evaluation=EvaluationConfig(num_images=8, network="pixels"),
    )


@pytest.mark.parametrize(
    ("augment", "images", "cached"),
    [
        ("flip", 1000, True),
        ("none", 100_000, True),
        ("flip", 100_001, False),
        ("crop_flip", 1000, False),
    ],
)
def test_the_teacher_is_cached_where_views_are_countable_and_few(
    augment: str, images: int, cached: bool
) -> None:
    given = trial(augment=augment)
    given = given.model_copy(
        update={"data": given.data.model_copy(update={"train_images": images})}
    )
    inputs = STAGES["train_tokenizer"].inputs_of(given)
    assert inputs == (("extract_teacher_features",) if cached else ())


def test_who_needs_the_teachers_weights() -> None:
    cached, online = trial(augment="flip", teacher="mobilenetv2"), trial(teacher="mobilenetv2")
    assert required_assets([("extract_teacher_features", cached)]) == ("mobilenetv2",)
    assert required_assets([("train_tokenizer", cached)]) == ()
    assert required_assets([("train_tokenizer", online)]) == ("mobilenetv2",)


def test_components_of_an_online_teacher_are_refused() -> None:
    with pytest.raises(ValueError, match=r"teacher_components needs .* at most 100,000 images"):
        TrialConfig.model_validate(trial(teacher_components=4).model_dump())


def test_reconstructions_do_not_depend_on_what_samples_are_compared_with() -> None:
    val = trial()
    adm = val.model_copy(
        update={"evaluation": val.evaluation.model_copy(update={"reference": "adm_imagenet256"})}
    )
    spec = STAGES["evaluate_reconstruction"]
    assert spec.read(val) == spec.read(adm)
    assert "extract_reference_features" in STAGES["evaluate_generation"].inputs_of(val)
    assert "extract_reference_features" not in STAGES["evaluate_generation"].inputs_of(adm)


def test_small_sets_take_random_crops_too() -> None:
    digits = SplitConfig(name="digits", split="train", image_size=16, images=20)
    config = TrainTokenizerConfig(train=digits, tokenizer=TOKENIZER, seed=0)
    batches = TokenizerBatches(config, load_split(digits), None, "cpu")
    image_BCHW, features = batches.get(0, slice(0, 4))
    assert image_BCHW.shape == (4, 3, 16, 16)
    assert features is None


@pytest.mark.parametrize(
    ("views", "said"), [(1, "of 1 fixed view of"), (10, "of 10 fixed views of")]
)
def test_the_protocol_names_the_views_that_a_generator_was_trained_on(
    views: int, said: str
) -> None:
    """The reference draws a crop whenever it reads an image."""
    scores = train_generator._with_views(Scores({"x": 1.0}, {"ar_val_loss": "4 images"}), views)
    assert scores.protocol == {"ar_val_loss": f"4 images, trained on codes {said} each image"}
    assert scores.metrics == {"x": 1.0}


def test_a_probe_with_the_generators_dropout_reads_anew_in_every_epoch(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    """The reference's quirk: what is learned differs, what is scored is without dropout."""
    found: dict[bool, list[Any]] = {}
    for quirk in (False, True, True):
        probe = ProbeConfig(epochs=2, batch_size=8, layer=1, reference_dropout_quirk=quirk)
        folder = tmp_path / f"{quirk}-{len(found)}"
        tracker = MemoryTracker()
        runtime = Runtime(folder / "checkpoints")
        config = LinearProbeConfig(probe=probe, seed=0)
        scores = linear_probe.run(config, trained, folder, tracker, runtime)
        found.setdefault(quirk, []).append(tracker.points)
        said = scores.protocol["probe_accuracy"]
        assert ("10 fixed views, generator's dropout on" in said) == quirk, said
        assert (folder / "checkpoints" / "features.safetensors").exists() != quirk
    assert found[True][0] == found[True][1], "drawn from the seed"
    assert found[True][0] != found[False][0]


def test_features_of_a_probe_are_computed_once(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LinearProbeConfig(probe=ProbeConfig(epochs=2, batch_size=8, layer=1), seed=0)
    asked = iter([False] * 11 + [True])  # ten views and the validation images, then an epoch
    runtime = Runtime(tmp_path, should_stop=lambda: next(asked))
    with pytest.raises(Interrupted):
        linear_probe.run(config, trained, tmp_path / "out", NullTracker(), runtime)
    read: list[int] = []
    features = LlamaGen.features

    def counted(self: LlamaGen, codes_BT: torch.Tensor, layer: int) -> torch.Tensor:
        read.append(len(codes_BT))
        return features(self, codes_BT, layer)

    monkeypatch.setattr(LlamaGen, "features", counted)
    again = config, trained, tmp_path / "out"
    scores = linear_probe.run(*again, NullTracker(), Runtime(tmp_path))
    assert read == [4], "the validation images alone"
    file = tmp_path / "features.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    read.clear()
    assert linear_probe.run(*again, NullTracker(), Runtime(tmp_path)) == scores
    assert read == [4, 16], "and the view that was damaged, the last"
