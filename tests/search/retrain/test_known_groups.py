"""Coils, plates or tiles that come back: the champion knows them, and the month says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.retrain.conftest import Months, write_month


@pytest.mark.slow
def test_images_of_groups_that_the_champion_was_trained_on_are_counted(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for month in ("2020-01", "2020-02"):
        write_month(images, month)
    rows = ["path,label,month,group"]
    for file in sorted(images.rglob("*.png")):
        month, label, name = file.relative_to(images).parts
        back = month == "2020-01" or name.split("-")[1] < "005"  # half of February's tiles are January's
        rows.append(f"{month}/{label}/{name},{label},{month},{name if back else f'new {name}'}")
    (images / "manifest.csv").write_text("\n".join(rows) + "\n")
    months = Months(images, "tiles", tmp_path / "mlruns")
    said = months.retrain("data=manifest", f"data.path={images / 'manifest.csv'}", "retrain.depth=none")
    assert said.code == 0, said.err
    (line,) = [line for line in said.out.splitlines() if "a group that the champion was trained on" in line]
    # Fifteen of February's images are of January's tiles; some of those were held out and trained nobody.
    assert 0 < int(line.split()[0]) <= 15, said.out
