"""Months that must not make the champion worse: broken camera, noise, nothing at all, a class nobody knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from lightning_modules.networks.blocknet import BlockNet
from search.retrain.champion import widened
from search.tracking.models import resolve_model
from tests.search.retrain.conftest import CLASSES, LEARNS, Months

FOUR = (*CLASSES, "crack")


def refused(months: Months, *arguments: str) -> str:
    """The reason for which the last month is refused; the champion is what it was, the ledger and the run say so."""
    said = months.retrain(*arguments)
    row = months.ledger.months()[-1]
    assert (said.code, row.state, row.outcome, row.champion_after, row.usable) == (1, "done", "refused", "1", False)
    assert f"{row.month}: refused, champion version 1 stays: {row.reason}." in said.out
    assert months.aliases == {"champion": "1"} and len(months.ledger.promotions()) == 1
    assert list(months.ledger.steps(row)) == ["check", "report"]
    run = months.client.get_run(str(row.run_id))
    assert run.info.status == "FINISHED" and run.data.tags["decision"] == f"refused: {row.reason}"
    page = Path(run.info.artifact_uri.removeprefix("file://")) / "month.html"
    assert "The month was refused; the champion stays" in page.read_text(encoding="utf-8")
    return str(row.reason)


def test_a_broken_camera(months: Months) -> None:
    months.arrives("2020-02", labels="black")
    months.arrives("2020-02", images=9, seed=1)
    assert refused(months).startswith("30 of 57 images show nothing (one grey value, as ")
    # A second call has nothing to do, and the month's images are used for nothing.
    assert months.retrain().code == 0
    assert {month for _, month in months.ledger.roles().values()} == {"2020-01"}
    # What the plant accepts is the plant's to say; the images are looked at then.
    said = months.retrain("retrain.constant_share=0.6", "retrain.depth=none")
    assert said.code == 0 and "settings changed since" in said.out
    assert "30 of 57 images show nothing (one grey value)." in said.out
    assert months.aliases == {"champion": "1"}


def test_files_that_are_all_the_same_are_refused_before_anything(months: Months) -> None:
    months.arrives("2020-02")
    for path in (months.images / "2020-02").glob("*/*"):
        Image.new("L", (24, 24)).save(path)
    ledger = months.ledger.months()
    said = months.retrain()
    assert said.code == 2
    assert said.err.startswith("retrain: 30 bad inputs in ")
    assert "but the same picture is labelled" in said.err.splitlines()[0]
    assert (months.ledger.months(), months.aliases) == (ledger, {"champion": "1"})
    aside = months.retrain("data.on_bad=set_aside")
    assert aside.code == 0
    assert aside.out.startswith("30 images set aside, the first: ")
    assert "2020-02: no image that can be used; not done." in aside.out
    assert months.ledger.months() == ledger


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("{s}/{c}", "retraining needs months: data/<YYYY-MM>/<class>/*"),
        ("2020-02/{s}/{c}", "is a split below a month"),
        ("{s}/2020-02/{c}", "is a month below a split"),
        ("{c}/2020-02", "is a month below a class"),
    ],
)
def test_folders_of_another_layout(months: Months, tmp_path: Path, layout: str, words: str) -> None:
    for label in CLASSES:
        for split in ("train", "test"):
            target = tmp_path / "other" / layout.format(c=label, s=split)
            shutil.copytree(months.images / "2020-01" / label, target, dirs_exist_ok=True)
            for path in target.glob("*.png") if split == "test" and "{s}" in layout else ():
                Image.open(path).rotate(180).save(path)
    ledger = months.ledger.months()
    said = months.retrain(f"data.path={tmp_path / 'other'}")
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1) and words in said.err
    assert months.ledger.months() == ledger


def test_an_empty_month(months: Months) -> None:
    (months.images / "2020-02" / "left").mkdir(parents=True)
    for folder in ("#recycle", "2020-02/left/@eaDir"):
        shutil.copytree(months.images / "2020-01", months.images / folder)
    ledger = months.ledger.months()
    said = months.retrain()
    assert (said.code, said.out.splitlines()[0]) == (0, "2020-02: no image that can be used; not done.")
    assert said.out.splitlines()[1] == "2 hidden and system files and folders skipped (#recycle, @eaDir)"
    assert said.out.splitlines()[2].startswith("Nothing to do: ")
    asked = months.retrain("month=2020-02")
    assert (asked.code, asked.err) == (
        2, "retrain: month=2020-02 has no images; months in the data: 2020-01 to 2020-01\n",
    )  # fmt: skip
    assert (months.ledger.months(), months.aliases) == (ledger, {"champion": "1"})


def test_a_new_class_is_refused(months: Months) -> None:
    months.arrives("2020-02", classes=FOUR)
    assert refused(months) == (
        "classes that the champion does not know: crack (10 images); retrain.new_class=extend accepts them"
    )


def test_with_a_new_class_the_rule_always_trains_and_says_so(months: Months) -> None:
    months.arrives("2020-02", classes=FOUR)
    said = months.retrain("retrain.new_class=extend", "retrain.epochs=1")
    assert said.code == 0, said.err
    row = months.ledger.months()[-1]
    assert row.numbers["action"] in ("head", "thaw") and row.challenger is not None
    run = months.client.get_run(str(row.run_id))
    assert run.data.tags["depth_reason"].startswith("new to the champion: crack; ")
    page = (Path(run.info.artifact_uri.removeprefix("file://")) / "month.html").read_text(encoding="utf-8")
    assert "new to the champion: crack; " in page and "Nothing is retrained" not in page


@pytest.mark.slow
def test_a_new_class_extends_the_head(months: Months) -> None:
    months.arrives("2020-02", classes=FOUR)
    assert months.retrain().code == 1
    said = months.retrain("retrain.new_class=extend", *LEARNS)
    assert said.code == 0, said.err
    assert "settings changed since" in said.out
    assert "New classes, for which the head gets outputs: crack (10 images)." in said.out
    row = months.ledger.months()[-1]
    assert row.outcome == "promoted", row.reason
    version = str(row.challenger)
    assert months.aliases == {"champion": version, "previous": "1"}
    assert resolve_model(f"models:/{months.model}@champion", months.root).card.classes == tuple(sorted(FOUR))

    # After a rollback the champion does not know the class again; its months wait.
    assert months.retrain("rollback", "reason=too many cracks are seen").code == 0
    months.arrives("2020-03", classes=FOUR)
    assert months.retrain().code == 1
    assert "does not know: crack" in str(months.ledger.latest()["2020-03"].reason)
    assert months.aliases == {"champion": "1", "previous": version}


def test_a_wider_head_keeps_its_rows(months: Months) -> None:
    model = resolve_model(f"models:/{months.model}@champion", months.root)
    images = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.net.eval()(images)
        for seed in (None, 3):
            wide = widened(model, ("crack", *CLASSES), seed=seed)
            after = wide.net(images)
            torch.testing.assert_close(after[:, 1:], before)
            for part in ("weight", "bias"):
                assert torch.equal(getattr(_last(wide.net), part)[1:], getattr(_last(model.net), part))
            assert seed is not None or bool((after.argmax(1) != 0).all())  # judged, it never answers the new class
            assert wide.card.classes == ("crack", *CLASSES)
        assert torch.equal(model.net(images), before)
    assert widened(model, CLASSES) is model


def _last(net: BlockNet) -> nn.Linear:
    return [layer for layer in net.head.modules() if isinstance(layer, nn.Linear)][-1]


@pytest.mark.slow
def test_a_month_of_noise_promotes_nobody_and_is_not_trained_on(months: Months) -> None:
    months.arrives("2020-02", labels="noise", images=20)
    months.arrives("2020-03")
    said = months.retrain("retrain.depth=0")
    assert said.code == 0, said.err
    noise, after = months.ledger.months()[-2:]
    assert (noise.month, noise.outcome, noise.usable) == ("2020-02", "kept", False)
    assert "labels fit neither model better than labels dealt at random" in str(noise.reason)
    assert (after.month, after.usable) == ("2020-03", True)
    assert after.numbers["newest_months"] == ["2020-03"]
    # The next month's search saw the first champion's images and its own.
    facts = months.client.get_run(str(after.run_id)).data.metrics
    assert facts["month_images/of older months"] == 24
    assert months.aliases["champion"] in ("1", after.challenger)


@pytest.mark.slow
def test_a_month_that_looks_other_is_no_noise_where_its_labels_can_be_read(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Champion and challenger answer one class for all, yet a probe reads the labels from the champion's blocks."""
    answer = BlockNet.forward

    def one_class(self: BlockNet, images: torch.Tensor) -> torch.Tensor:
        logits = answer(self, images)
        return logits + 1000 * (torch.arange(logits.shape[1]) == 0)

    monkeypatch.setattr(BlockNet, "forward", one_class)
    months.arrives("2020-02", drift=True)
    said = months.retrain("retrain.depth=head", "retrain.epochs=1", "trainer.batch_size=64")
    row = months.ledger.months()[-1]
    assert said.code == 0 and row.usable
    assert row.numbers["accuracy_before"] == row.numbers["challenger_accuracy"] == pytest.approx(1 / 3)
