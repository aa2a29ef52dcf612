"""What a network in bfloat16 gives where products are summed in float32, as GPUs do: on a CPU, every value rounded where it is one."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper


def rounded(network: bytes) -> bytes:
    """An ONNX network with bfloat16 insides as one in float32, whose values pass through bfloat16."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(network))
    graph = model.graph
    brain = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    for tensor in graph.initializer:
        _widen(tensor)
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.BFLOAT16:
            node.attribute[0].i = TensorProto.FLOAT
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in brain:
                node.output[i] = f"{name}/exact"
                nodes.append(helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=TensorProto.BFLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}/rounded"], [name], to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.BFLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
