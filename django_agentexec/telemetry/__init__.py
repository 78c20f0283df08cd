"""OpenTelemetry (the extra `otel`): the trace context of activities, and spans of recorded calls."""
