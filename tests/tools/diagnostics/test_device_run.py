"""Where nodes ran and which attention was taken, as told by a process that ran a graph."""

from pathlib import Path

import pytest
from nestvec.errors import ProviderError
from nestvec.export.device_graph import DeviceRecipe, export_device_graph
from nestvec.tools.diagnostics.attention_kernels import Route, read_routes
from nestvec.tools.diagnostics.device_run import CUDA, MARK, DeviceRun, read_run, tell

from tests.backends.cuda.emulation import emulate
from tests.backends.cuda.host_device import host_line
from tests.export.families.harness import load

PRINTED = """
\x1b[36mAttentionKernelOptions: FLASH_ATTENTION=1 EFFICIENT_ATTENTION=1 MATH=0
Warning: Unfused kernel cannot be disabled right now. MATH=0 is ignored.\x1b[0m
\x1b[36mOperator=PackedMultiHeadAttention Node=a_1 DataType=fp16 SdpaKernel=FLASH_ATTENTION\x1b[0m
\x1b[36mOperator=PackedMultiHeadAttention Node=a_2 DataType=fp16 SdpaKernel=FLASH_ATTENTION\x1b[0m
\x1b[36mOperator=PagedAttention Node=p DataType=bf16 SdpaKernel=FLASH_ATTENTION NumSplits=1 GqaGroupSize=1\x1b[0m
\x1b[36mOperator=PackedMultiHeadAttention DataType=fp32 SdpaKernel=MATH\x1b[0m
"""


def test_kernels_are_read_from_what_the_runtime_prints() -> None:
    """As the wheel of 1.31.1 prints it (seen on the rehearsal's device)."""
    found = read_routes(PRINTED.splitlines())
    assert found == {
        Route("PackedMultiHeadAttention", "fp16", "FLASH_ATTENTION"): 2,
        Route("PagedAttention", "bf16", "FLASH_ATTENTION"): 1,
        Route("PackedMultiHeadAttention", "fp32", "MATH"): 1,
    }


def test_what_should_not_be_is_said() -> None:
    """Computing on the CPU, copies, attention that writes its scores out; shapes may be reckoned anywhere."""
    placement = {
        CUDA: {"MatMul": 4, "MemcpyToHost": 1},
        "CPUExecutionProvider": {"Shape": 1, "Softmax": 2},
    }
    found = DeviceRun(placement, read_routes(PRINTED.splitlines()), 3).problems
    assert found == [
        "on CPUExecutionProvider: Softmax",
        "copies between host and device: MemcpyToHost",
        "attention without a fused kernel: PackedMultiHeadAttention in fp32",
    ]
    assert DeviceRun({CUDA: {"MatMul": 1}}, read_routes([]), 1).problems == []


def test_a_run_that_failed_says_how() -> None:
    """The last line of its errors, and its status."""
    with pytest.raises(ProviderError, match=r"exit status 139.*Segmentation fault"):
        read_run("", "many lines\nSegmentation fault", 139)
    with pytest.raises(ProviderError, match="nothing was said"):
        read_run("no mark", "", 0)


def test_a_graph_is_run_at_several_sizes_and_its_nodes_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the host in the device's place, so all of them are there."""
    family = load("bert")
    family.write(tmp_path)
    export_device_graph(tmp_path, family.config, tmp_path / "model.onnx", DeviceRecipe())
    tell(emulate(tmp_path / "model.onnx"), 40, host_line())
    output = capsys.readouterr().out
    assert output.startswith(MARK)
    found = read_run(output, "", 0)
    assert found.placement["CPUExecutionProvider"]["SkipLayerNormalization"] >= 5
    assert found.captured == 5
