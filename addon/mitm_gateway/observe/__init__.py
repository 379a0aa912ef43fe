"""Destinations of records: log file, statistics, OpenTelemetry, the Gateway view."""
