"""Networks at run time. What `backend` may be; `auto` takes the first of PREFERRED that works, which needs no torch."""

PREFERRED = ("tensorrt", "onnxruntime_tensorrt", "onnxruntime_cuda", "onnxruntime")
BACKENDS = ("auto", *PREFERRED, "torch")
PRECISIONS = ("float32", "float16", "bfloat16")  # inside TensorRT's engines
PRECISION = "float16"
