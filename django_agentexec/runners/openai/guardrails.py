"""Error texts of guardrail tripwires with the guardrail's name and output. The text of the SDK only has the class."""

from __future__ import annotations

from typing import Any

from agents import (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)
from pydantic_core import to_json

MAX_OUTPUT = 1_000  # characters of a guardrail's output in an error
Tripwire = (
    InputGuardrailTripwireTriggered
    | OutputGuardrailTripwireTriggered
    | ToolInputGuardrailTripwireTriggered
    | ToolOutputGuardrailTripwireTriggered
)


def name_guardrail(error: Tripwire) -> None:
    """Replace the text of `error` by a text with the guardrail's name and output."""
    if isinstance(error, (InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered)):
        guardrail: Any = error.guardrail_result.guardrail
        output = error.guardrail_result.output.output_info
    else:
        guardrail, output = error.guardrail, error.output.output_info
    error.args = (f"Guardrail {guardrail.get_name()} triggered its tripwire{_output_text(output)}.",)


def _output_text(output: Any) -> str:
    if output is None:
        return ""
    try:
        text = output if isinstance(output, str) else to_json(output, fallback=repr).decode()
    except Exception:  # noqa: BLE001  # the repr of an output may raise anything
        text = f"a {type(output).__name__}"
    return f": {text[:MAX_OUTPUT]}"
