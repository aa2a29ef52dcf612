"""Networks at run time. What `backend` may be; `auto` takes the first of PREFERRED that works."""

PREFERRED = ("tensorrt", "onnxruntime_tensorrt", "onnxruntime_cuda", "onnxruntime")
BACKENDS = ("auto", *PREFERRED)
