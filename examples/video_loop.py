"""Detect objects in a video or camera stream, frame by frame, and show or write it with boxes and the frame rate.

python examples/video_loop.py data/samples/scenes.mp4 --out boxes.mp4
python examples/video_loop.py 0
"""

from __future__ import annotations

import argparse
import time

import cv2

from cspyolo import YOLO

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("source", help="video, camera number or stream")
parser.add_argument("--out", help="video file to write; default: show a window, q closes it")
options = parser.parse_args()

model = YOLO()  # the shipped detector; for your own: YOLO("my.cfg", "my.weights", names="my.names")
writer, start = None, time.perf_counter()
for count, result in enumerate(model(options.source, stream=True), start=1):
    drawn = result.plot()
    cv2.putText(drawn, f"{count / (time.perf_counter() - start):.0f} fps", (8, 24), 0, 0.7, (255, 255, 255), 2)
    if options.out:
        size = (drawn.shape[1], drawn.shape[0])
        writer = writer or cv2.VideoWriter(options.out, cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
        writer.write(drawn)
    else:
        cv2.imshow("cspyolo", drawn)
        if cv2.waitKey(1) == ord("q"):
            break
if writer:
    writer.release()
