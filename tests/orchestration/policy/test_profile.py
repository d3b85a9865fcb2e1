"""The profile that users copy, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.backends import profile_options
from orchestration.policy.profile import Profile, Request, load_profile

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "sweeps" / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_are_valid(file: Path) -> None:
    assert load_profile(file, profile_options()) != Profile()


def test_training_has_more_processes_on_the_cluster_of_the_example() -> None:
    (file,) = (file for file in EXAMPLES if file.stem == "slurm")
    profile = load_profile(file, profile_options())
    training, other = profile.request("train_tokenizer"), profile.request("extract_codes")
    assert training.processes > other.processes
    assert training.options("slurm") == other.options("slurm") == profile.default.options("slurm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults: {}", "defaults: no such key; keys: default, stages"),
        ("default: {gpu: 1}", "default.gpu: no such key; keys: "),
        ("default: {gpu: 1}", "; did you mean 'gpus'?"),
        ("default: {slrum: {partition: main}}", "; did you mean 'slurm'?"),
        ("default: {gpu: 1, cpus: 0}", "default.cpus 0: Input should be greater than 0"),
        ("default: {gpu: 1, cpus: 0}", "default.gpu: no such key"),
        ("max_parallel: 0", "max_parallel 0: Input should be greater than 0"),
        ("stages: {train_tokeniser: {}}", "no stage 'train_tokeniser'"),
        ("stages: {train_tokenizer: {processes: 3, nodes: 2}}", "do not spread over 2 nodes"),
        ("default: {time_minutes: 0}", "default.time_minutes"),
        ("default: {cpus: [", "while parsing"),
        ("max_parallel: 1\ndefault:\n  gpu: 1", "p.yaml:3: default.gpu: no such key"),
        ("default: {cpus: 4}\ndefault: {cpus: 8}", "p.yaml:2: default: duplicate key"),
        ("default: {time_minutes: 1:30}", "default.time_minutes '1:30'"),  # 90 in YAML 1.1
        ("default: {cpus: on}", "default.cpus 'on'"),  # true in YAML 1.1, and so 1
        ("stages: {train_tokenizer: {gpu: 1}}", "stages.train_tokenizer.gpu: no such key"),
        ("stages: {train_tokenizer: {slurm: 3}}", "stages.train_tokenizer.slurm 3"),
        ("stages: {train_tokenizer: {slurm: 0}}", "stages.train_tokenizer.slurm 0"),
        ("default: {slurm: {gres: [gpu, shard]}}", "gres ['gpu', 'shard']: must be text"),
        ("[" * 3000, "at most 30 levels"),
        ("a: " + "{a: " * 100 + "1" + "}" * 100, "more than 30 levels"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match="--profile") as error:
        load_profile(file, profile_options())
    assert said in str(error.value)


def test_sbatch_is_given_text_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    written = "time: 1:30:00, mem: 010, account: 1e5, partition: no, nodelist: 0x1f, nice: 1"
    file.write_text(f"default: {{slurm: {{{written}, exclusive: true, qos: null}}}}\n")
    profile = load_profile(file, profile_options())
    expected = dict(pair.split(": ", 1) for pair in written.split(", "))
    assert profile.request("linear_probe").options("slurm") == {
        **expected,
        "exclusive": True,
        "qos": None,
    }
    copy = tmp_path / "copy.json"  # as jobs are given it
    copy.write_text(profile.model_dump_json())
    assert load_profile(copy, profile_options()) == profile


def test_small_models_go_first_where_gates_wait_for_them() -> None:
    assert Profile().ready_order == "longest"
    assert Profile.model_validate({"gates": {"throughput": 0.5}}).ready_order == "cheapest"
    assert Profile.model_validate({"order": "cheapest"}).ready_order == "cheapest"


def test_options_of_a_backend_are_merged_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    stages = "train_tokenizer: {slurm: {qos: high}}, linear_probe: {slurm: null}"
    file.write_text(f"default: {{slurm: {{partition: main}}}}\nstages: {{{stages}}}\n")
    profile = load_profile(file, profile_options())
    wanted = {"partition": "main", "qos": "high"}
    assert profile.request("train_tokenizer").options("slurm") == wanted
    assert profile.request("linear_probe").options("slurm") == {"partition": "main"}


def test_gpus_of_the_command_line_win_where_a_stage_can_share_its_work() -> None:
    written = {"train_tokenizer": {"processes": 2, "time_minutes": 9}, "linear_probe": {"cpus": 3}}
    profile = Profile(default=Request(cpus=2, gpus=1), stages=written, max_parallel=5).with_gpus(4)
    training, generator = profile.request("train_tokenizer"), profile.request("train_generator")
    assert (training.processes, training.gpus, training.time_minutes) == (4, 1, 9)
    assert (generator.processes, generator.gpus, generator.cpus) == (4, 1, 2)
    probe = profile.request("linear_probe")
    assert (probe.processes, probe.gpus, probe.cpus) == (1, 1, 3)
    assert profile.max_parallel == 5


def test_gpus_that_do_not_spread_over_nodes_are_refused() -> None:
    profile = Profile(default=Request(processes=4, nodes=2))
    assert profile.with_gpus(6).request("train_tokenizer").nodes == 2
    wrong = r"^--gpus-per-stage 3: processes 3 do not spread over 2 "
    with pytest.raises(ValueError, match=wrong):
        profile.with_gpus(3)
