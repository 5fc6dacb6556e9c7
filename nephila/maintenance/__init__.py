"""Looking after a project between runs: recover after a dead run, explain a file, forecast, clean, archive."""
