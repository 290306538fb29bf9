"""A FastAPI service that keeps a model loaded: POST an image to /detect and get its objects as JSON.

pip install fastapi uvicorn python-multipart
uvicorn examples.service:app
curl -F image=@data/samples/scene1.jpg http://127.0.0.1:8000/detect
"""

from __future__ import annotations

import threading
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import FastAPI, File, HTTPException

from cspyolo import YOLO

app = FastAPI(title="cspyolo")
model = YOLO()  # the shipped detector; for your own: YOLO("my.cfg", "my.weights", names="my.names")
one_at_a_time = threading.Lock()


@app.post("/detect")
def detect(image: Annotated[bytes, File()], conf: float = 0.25) -> dict[str, Any]:
    """Detect objects in an uploaded JPEG, PNG or WebP image."""
    array = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if array is None:
        raise HTTPException(415, "expected a JPEG, PNG or WebP image")
    with one_at_a_time:
        return model(array, conf=conf)[0].to_dict()
