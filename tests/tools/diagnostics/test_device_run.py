"""Where nodes ran and which attention kernels, as printed by a process that ran a graph."""

from pathlib import Path

import pytest
from nestvec.errors import ProviderError
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.tools.diagnostics.attention_kernels import AttentionKernel, read_attention_kernels
from nestvec.tools.diagnostics.device_run import CUDA, MARK, DeviceRun, print_placement, read_run

from tests.backends.cuda.emulation import emulate
from tests.backends.cuda.host_device import host_thread
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
    """The lines are as the wheel of 1.31.1 prints them (seen on the device of `make gpu-rehearsal`)."""
    kernels = read_attention_kernels(PRINTED.splitlines())
    assert kernels == {
        AttentionKernel("PackedMultiHeadAttention", "fp16", "FLASH_ATTENTION"): 2,
        AttentionKernel("PagedAttention", "bf16", "FLASH_ATTENTION"): 1,
        AttentionKernel("PackedMultiHeadAttention", "fp32", "MATH"): 1,
    }


def test_problems_are_named() -> None:
    """Computing on the CPU, copies and unfused attention are problems; shapes may be computed anywhere."""
    placement = {
        CUDA: {"MatMul": 4, "MemcpyToHost": 1},
        "CPUExecutionProvider": {"Shape": 1, "Softmax": 2},
    }
    problems = DeviceRun(placement, read_attention_kernels(PRINTED.splitlines()), 3).problems
    assert problems == [
        "on CPUExecutionProvider: Softmax",
        "copies between host and device: MemcpyToHost",
        "attention without a fused kernel: PackedMultiHeadAttention in fp32",
    ]
    assert DeviceRun({CUDA: {"MatMul": 1}}, read_attention_kernels([]), 1).problems == []


def test_a_run_that_failed_raises_with_the_reason() -> None:
    """The message has the last line of its errors, and its exit status."""
    with pytest.raises(ProviderError, match=r"exit status 139.*Segmentation fault"):
        read_run("", "many lines\nSegmentation fault", 139)
    with pytest.raises(ProviderError, match="nothing was said"):
        read_run("no mark", "", 0)


def test_a_graph_is_run_at_several_sizes_and_its_nodes_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host stands for the device here, so all nodes run on the CPU."""
    family = load("bert")
    family.write(tmp_path)
    export_device_graph(tmp_path, family.config, tmp_path / "model.onnx", DeviceExportOptions())
    print_placement(emulate(tmp_path / "model.onnx"), 40, host_thread())
    output = capsys.readouterr().out
    assert output.startswith(MARK)
    run = read_run(output, "", 0)
    assert run.placement["CPUExecutionProvider"]["SkipLayerNormalization"] >= 5
    assert run.captured == 5
