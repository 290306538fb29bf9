"""examples/ray_detect.py on a local cluster of two workers, one of which is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

IMAGES, SHARD = 80, 5


def workers(of: int) -> list[int]:
    """Process ids of the detectors in the cluster started by process `of`."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], check=True, capture_output=True, text=True).stdout
    rows = [
        (int(pid), int(parent), words)
        for pid, parent, words in (line.split(None, 2) for line in table.splitlines()[1:])
    ]
    family = {of}
    for _ in range(5):
        family |= {pid for pid, parent, _ in rows if parent in family}
    return [pid for pid, _, words in rows if pid in family and "MapWorker(Map(Detector))" in words]


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
def test_every_image_is_in_the_output_once_although_a_worker_is_killed(tmp_path: Path) -> None:
    sample = next((REPOSITORY / "data" / "samples").glob("*.jpg"))
    paths = [tmp_path / f"{number}.jpg" for number in range(IMAGES)]
    for path in paths:
        shutil.copy(sample, path)
    paths[7].write_bytes(b"broken")
    listed, found = tmp_path / "list.txt", tmp_path / "found"
    listed.write_text("".join(f"{path}\n" for path in paths))
    command = [
        sys.executable,
        str(REPOSITORY / "examples" / "ray_detect.py"),
        str(listed),
        str(found),
        "--shard",
        str(SHARD),
    ]
    settings = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    said = tmp_path / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=stream, stderr=stream)
    while len(list(found.glob("*.parquet"))) < 3:
        assert process.poll() is None, said.read_text()
        time.sleep(0.05)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    assert process.wait(300) == 0, said.read_text()
    assert [row["path"] for row in rows(found)] == [str(path) for path in paths]
    assert [row["path"] for row in rows(found) if row["error"]] == [str(paths[7])]
    assert all(row["class_id"] for row in rows(found) if not row["error"])
    assert not list(found.glob(".*"))

    first = sorted(found.glob("*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in first[1:]}
    first[0].unlink()
    again = subprocess.run(command, env=os.environ | settings, check=True, capture_output=True, text=True)
    assert (
        f"{len(first) - 1} of {len(first)} files are there" in again.stdout and f"{SHARD} images, 0 of" in again.stdout
    )
    assert [row["path"] for row in rows(found)] == [str(path) for path in paths]
    assert {path: path.stat().st_mtime_ns for path in first[1:]} == before
