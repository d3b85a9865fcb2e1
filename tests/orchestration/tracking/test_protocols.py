"""Protocols that trials share are on the sweep's run, and on no trial."""

from __future__ import annotations

import shutil

import pytest

from analysis import load_runs
from gigatok import names
from orchestration.tracking.protocols import new_protocols, own_protocols
from orchestration.tracking.shipping import default_uri
from tests.orchestration.tracking.tracking_helpers import Reader, Run, keys_of, send

PSNR, FID = (names.PREFIX_PROTOCOL + name for name in ("psnr", "rfid"))
TAGS = {PSNR: "10 images", FID: "not measured: one image"}


def test_only_protocols_of_scores_are_shared() -> None:
    assert new_protocols(TAGS, {"psnr"}, {}) == {PSNR: "10 images"}
    assert new_protocols(TAGS, {"psnr", "no protocol"}, {PSNR: "9 images"}) == {}
    # Why there is no score is a fact of the trial.
    assert own_protocols(TAGS, {"psnr"}, {PSNR: "10 images"}, ()) == {FID: TAGS[FID]}


def test_a_trial_carries_what_differs_and_what_it_carried() -> None:
    assert own_protocols(TAGS, {"psnr", "rfid"}, {PSNR: "9 images", FID: TAGS[FID]}, ()) == {
        PSNR: "10 images"
    }
    # A run of an earlier version carries them all; its own win, so they are renewed.
    assert own_protocols(TAGS, {"psnr", "rfid"}, TAGS, {PSNR}) == {PSNR: "10 images"}


def test_a_score_without_protocol_gets_none_of_the_others() -> None:
    assert own_protocols({}, {"psnr"}, TAGS, ()) == {PSNR: ""}
    assert own_protocols({}, {"lpips"}, TAGS, ()) == {}


@pytest.mark.heavy
def test_a_launch_that_goes_on_keeps_the_protocols_of_the_sweep(store, plan) -> None:
    key = names.PREFIX_PROTOCOL + "params_total"
    first, second = keys_of(plan)
    Run(store, plan, first).complete()
    send(store, plan)
    reader = Reader(default_uri(store))
    sweep = reader.one(names.KIND_SWEEP)
    assert sweep.data.tags[key] == "closed form"
    assert not any(key in trial.data.tags for trial in reader.runs(names.KIND_TRIAL))
    # As if another trial had been the first, and the ledgers were lost.
    reader.client.set_tag(sweep.info.run_id, key, "counted")
    shutil.rmtree(store.tracking)
    Run(store, plan, second).complete()
    send(store, plan)
    trials = reader.runs(names.KIND_TRIAL)
    assert [trial.data.tags[key] for trial in trials] == ["closed form"] * 2
    assert reader.one(names.KIND_SWEEP).data.tags[key] == "counted", "it never changes"
    table = load_runs("study", default_uri(store))
    assert table["protocol.params_total"].to_list() == ["closed form"] * 2


def test_the_table_has_what_trials_share(store, plan) -> None:
    first, _ = keys_of(plan)
    Run(store, plan, first).complete()
    send(store, plan)
    table = load_runs("study", default_uri(store)).sort("params_total", nulls_last=True)
    # The second trial has no score yet, and so no protocol of it.
    assert table["protocol.params_total"].to_list() == ["closed form", None]
