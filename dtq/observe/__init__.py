"""Shows what a running queue does: `stats` defines the figures, `metrics` reads them from Redis, `logs`
writes log lines, `tracing` follows a task through all processes, `otel` exports that as OpenTelemetry spans.
"""
