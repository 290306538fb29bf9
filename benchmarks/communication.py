"""Compute what training on several GPUs sends over the network, and the bandwidth needed for 90 % efficiency.

  python benchmarks/communication.py                          a table for the shipped cfgs
  python benchmarks/communication.py --cfg my.cfg --tflops 60
  sudo python benchmarks/communication.py --measure           compare the model with two real processes (Linux)

Each weight update sums the gradients over all n GPUs once and averages the rolling statistics of batch normalisation: S bytes.
In a ring, each GPU sends 2 (n - 1) / n * S. An update of `batch` images takes 3 * BFLOPs * batch / n operations per GPU.
Communication does not overlap with computation, so at an efficiency of e it may take (1 / e - 1) times the computing time.
--sync-bn adds three messages of two floats per channel and forward pass, which cost latency rather than bandwidth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import ROOT, cfg_path, table
from data.scenes import make_scenes
from models.network import Network
from models.plan import Plan, read_plan
from models.training import Training

CFGS = (
    "yolov3-tiny-prn",
    "cspdensenetb-ref-prn",
    "csppeleenet-ref-prn3l",
    "csppeleenet-efm",
    "csresnext50-panet-spp",
    "csppeleenet",
    "csresnext50",
    "vovnet57",
)
GPUS = (2, 4, 8, 16, 32, 64)
BACKWARD = 3  # operations of forward plus backward pass, relative to the forward pass
FLOAT = 4
COUNTED = (4, 16)  # iterations of the two runs whose difference is measured


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cfg", nargs="+", default=list(CFGS), help="cfg files, or names of files in cfg/")
    add("--tflops", type=float, default=10.0, help="sustained TFLOPS of one GPU in training (default 10)")
    add("--efficiency", type=float, default=0.9, help="efficiency to reach (default 0.9)")
    add("--batch-size", type=int, help="images per weight update; default: the cfg's")
    add("--measure", action="store_true", help="measure two processes in their own network namespace; needs root")
    return parser.parse_args()


def bytes_per_update(plan: Plan) -> int:
    """S: size of all trained weights and rolling statistics."""
    training = Training(Network(plan))
    sizes = [each.numel() for each in training.statistics()]
    sizes += [parameter.numel() for parameter in training.network.parameters() if parameter.requires_grad]
    return FLOAT * sum(sizes)


def bits_per_second(plan: Plan, sent: int, gpus: int, options: argparse.Namespace) -> float:
    """Bandwidth that each GPU needs to send `sent` bytes per update at the requested efficiency."""
    batch = options.batch_size or plan.net.batch
    seconds = BACKWARD * sum(step.cost.operations for step in plan.steps) * batch / gpus / (options.tflops * 1e12)
    return 8 * sent * 2 * (gpus - 1) / gpus / (seconds * (1 / options.efficiency - 1))


def row(name: str, options: argparse.Namespace) -> list[str]:
    plan = read_plan(cfg_path(name))
    sent, batch = bytes_per_update(plan), options.batch_size or plan.net.batch
    work = sum(step.cost.operations for step in plan.steps) / 1e9
    size = f"{plan.input.width}x{plan.input.height}"
    needed = (f"{bits_per_second(plan, sent, count, options) / 1e9:,.0f}" for count in GPUS)
    return [Path(name).stem, size, f"{work:.2f}", str(batch), f"{sent / 1e6:.1f}", *needed]


def measured(cfg: Path, folder: Path) -> int:
    """Bytes on the wire per update of two processes, measured in their own network namespace."""
    data = make_scenes(folder / "scenes", 8)
    space = f"cspyolo-{os.getpid()}"
    counter = "/sys/class/net/lo/statistics/tx_bytes"
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
        inside = ["ip", "netns", "exec", space]
        seen = [0]
        for number in COUNTED:
            command = [*inside, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
            command += ["--master-addr", "127.0.0.1", str(ROOT / "train.py"), "--cfg", str(cfg), "--data", str(data)]
            command += ["--img-size", "96", "--batch-size", "2", "--subdivisions", "1", "--iterations", str(number)]
            command += ["--device", "cpu", "--workers", "0", "--no-val", "--no-plots", "--project", str(folder)]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seen.append(int(subprocess.run([*inside, "cat", counter], check=True, capture_output=True).stdout))
        first, second = seen[1] - seen[0], seen[2] - seen[1]
        return (second - first) // (COUNTED[1] - COUNTED[0])
    finally:
        subprocess.run(["ip", "netns", "del", space], check=False)


def main() -> int:
    options = parse_arguments()
    if not options.measure:
        goal = f"an efficiency of {options.efficiency:g} at {options.tflops:g} TFLOP/s"
        head = ("cfg", "input", "BFLOPs", "batch", "MB per update", *(f"{count} GPUs" for count in GPUS))
        print(f"Gbit/s that each GPU must send for {goal}\n")
        print(table(head, [row(name, options) for name in options.cfg]))
        return 0
    print("| cfg | modelled, MB | measured, MB | ratio |\n|---|---|---|---|")
    for name in options.cfg:
        modelled = 2 * bytes_per_update(read_plan(cfg_path(name)))  # 2 (n - 1) / n * S from each of n = 2
        with tempfile.TemporaryDirectory() as folder:
            found = measured(cfg_path(name).resolve(), Path(folder))
        print(f"| {Path(name).stem} | {modelled / 1e6:.2f} | {found / 1e6:.2f} | {found / modelled:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
