"""Named configurations, as YAML files."""
