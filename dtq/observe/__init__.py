"""What can be seen of a running queue: `stats` are the figures, `metrics` reads them from Redis, `logs`
writes lines, `tracing` follows a task through all processes, and `otel` makes OpenTelemetry's spans of that.
"""
